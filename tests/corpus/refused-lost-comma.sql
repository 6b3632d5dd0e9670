-- refused 4:66 expected ',' or ')' after a property, found 'map'
@App:name('refused-lost-comma')
@App:qlVersion('2')
CREATE SINK Far WITH (type='tcp', url='tcp://far.example:9892/x' map.type='binary') (a string, b int);
