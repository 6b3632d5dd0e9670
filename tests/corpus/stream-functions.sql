-- expect worker stream-functions
-- expect stream Lines: stream (text string)
-- expect stream Pages: stream (text string, at long)
-- expect topic c8locals.Lines: read (text string)
-- expect topic c8locals.Pages: read (text string, at long)
-- expect query: Words from Lines (a stream function)
-- expect query: Batches from Lines (WINDOW)
-- expect query: Counted from Lines (an expression without AS)
-- expect query: Slow from Lines (OUTPUT)
-- expect query: Ordered from Pages (a stream function)
-- expect query: Rated from Pages (INSERT ALL EVENTS)
-- expect query: Pairs from Pages, Lines (INSERT EVENTS)
@App:name('stream-functions') @App:qlVersion('2')
CREATE STREAM Lines (text string);
CREATE STREAM Pages (text string, at long);
INSERT INTO Words SELECT token FROM Lines#str:tokenize(text, ',');
INSERT INTO Batches SELECT text FROM Lines#window.lengthBatch(5);
INSERT INTO Counted SELECT count() FROM Lines;
INSERT INTO Slow SELECT text FROM Lines OUTPUT LAST EVERY 5 sec;
INSERT INTO Ordered SELECT at, count() AS pages FROM Pages#reorder:kslack(at, 5000L)#window.time(5 min);
INSERT ALL EVENTS INTO Rated FROM Pages#streamingml:perceptronClassifier(`spam`, 0.0, 0.5, at);
INSERT EVENTS INTO Pairs SELECT p.text AS page, l.text AS line
FROM Pages#window.unique:ever(text) AS p JOIN Lines AS l ON p.text == l.text;
