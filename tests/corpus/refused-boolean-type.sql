-- refused 4:38 expected a type for the attribute open
@App:name('refused-boolean-type')
@App:qlVersion('2')
CREATE STREAM Doors (id string, open boolean);
