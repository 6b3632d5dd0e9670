-- refused 4:78 expected ',' or ')' after a property, found 'name'
@App:name('refused-quotes-in-quotes')
@App:qlVersion('2')
CREATE SOURCE People WITH (type='stream', topic='people', map.attributes="n="name",a="age"") (n string, a int);
