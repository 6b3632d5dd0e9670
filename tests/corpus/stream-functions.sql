-- expect worker stream-functions
-- expect stream Lines: stream (text string)
-- expect topic c8locals.Lines: read (text string)
-- expect query: Words from Lines (a stream function)
-- expect query: Batches from Lines (WINDOW)
-- expect query: Counted from Lines (an expression without AS)
-- expect query: Slow from Lines (OUTPUT)
@App:name('stream-functions') @App:qlVersion('2')
CREATE STREAM Lines (text string);
INSERT INTO Words SELECT token FROM Lines#str:tokenize(text, ',');
INSERT INTO Batches SELECT text FROM Lines#window.lengthBatch(5);
INSERT INTO Counted SELECT count() FROM Lines;
INSERT INTO Slow SELECT text FROM Lines OUTPUT LAST EVERY 5 sec;
