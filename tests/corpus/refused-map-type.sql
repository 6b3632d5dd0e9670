-- refused 4:40 expected a type for the attribute goods
@App:name('refused-map-type')
@App:qlVersion('2')
CREATE STREAM Carts (who string, goods map<string, int>);
