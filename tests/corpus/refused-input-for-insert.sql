-- refused 5:1 expected INSERT INTO, UPDATE or DELETE in the query, found none
@App:name('refused-input-for-insert')
@App:qlVersion('2')
CREATE STREAM Parts (json string);
SELECT json:group(json) AS parts FROM Parts WINDOW SLIDING_LENGTH(5) INPUT Whole;
