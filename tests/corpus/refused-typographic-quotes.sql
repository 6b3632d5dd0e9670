-- refused 4:32 write strings in straight quotes
@App:name('refused-typographic-quotes')
@App:qlVersion('2')
CREATE STORE Sensors WITH(type=’database’, collection=’samples’) (id string, temperature double);
