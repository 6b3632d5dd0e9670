-- refused 4:67 expected '(' and the attributes, found ')'
@App:name('refused-parenthesis-too-many')
@App:qlVersion('2')
CREATE SINK Prices WITH (type='kafka', topic='p', map.type='json')) (symbol string);
