-- refused 5:48 expected an operator, AS, ',' or FROM after an expression, found 'many'
@App:name('refused-lost-as')
@App:qlVersion('2')
CREATE STREAM Guests (names object);
INSERT INTO Counted SELECT sizeOfSet(distinct) many FROM Guests;
