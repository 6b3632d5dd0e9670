-- refused 6:14 expected ';' at the end of the query, found 'TUMBLING_LENGTH'
@App:name('refused-lost-window')
@App:qlVersion('2')
CREATE STREAM Weighed (grams int);
INSERT INTO Sums SELECT sum(grams) AS grams
FROM Weighed TUMBLING_LENGTH(3);
