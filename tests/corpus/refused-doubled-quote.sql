-- refused 5:68 expected an operator or ')', found a string
@App:name('refused-doubled-quote')
@App:qlVersion('2')
CREATE STREAM Notes (line string);
INSERT INTO Matched SELECT regex:matches(line, 'the driver said it''s late') AS late FROM Notes;
