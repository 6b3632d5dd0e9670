-- refused 4:1 expected CREATE, INSERT, UPDATE, DELETE or PARTITION, found 'Reads'
@App:name('refused-prose')
@App:qlVersion('2')
Reads what is written to a collection.
CREATE SOURCE Rows WITH (type='database', collection='rows', map.type='json') (id string);
