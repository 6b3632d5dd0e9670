-- refused 5:1 expected '(' and the attributes, found 'INSERT'
@App:name('refused-lost-columns')
@App:qlVersion('2')
CREATE SOURCE Quotes WITH (type='inMemory', topic='q', map.type='json', map.attributes="symbol='$.s', price='$.p'")
INSERT INTO Prices SELECT price FROM Quotes;
