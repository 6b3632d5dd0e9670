-- expect worker without a name
-- expect source Quotes: http (symbol string)
-- not run 1:1 expected @App:name
@app.name('QuoteReader') @App:qlVersion('2')
CREATE SOURCE Quotes WITH (type='http', map.type='json') (symbol string);
