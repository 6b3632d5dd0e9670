-- refused 6:14 expected ';' at the end of the query, found 'select'
@App:name('refused-select-twice')
@App:qlVersion('2')
CREATE STREAM Weighed (grams int);
INSERT INTO Octal SELECT math:oct(grams) AS octal
FROM Weighed select grams;
