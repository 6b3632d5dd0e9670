-- refused 6:1 expected ';' at the end of the statement, found 'INSERT'
@App:name('refused-lost-semicolon')
@App:qlVersion('2')
CREATE STREAM Items (id string, price float)

INSERT INTO Grouped SELECT price, str:groupConcat(id) AS ids FROM Items WINDOW TUMBLING() GROUP BY price;
