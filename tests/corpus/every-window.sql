-- expect worker every-window
-- expect stream S: stream (id string, price float, at long)
-- expect window Held
-- expect window Batch
-- expect sink O: log (id string)
-- expect topic c8locals.S: read (id string, price float, at long)
-- expect query: O from S (WINDOW)
-- expect query: O from S (WINDOW)
-- expect query: O from S (WINDOW)
-- expect query: O from S (WINDOW)
-- expect query: O from S (WINDOW)
-- expect query: O from S (WINDOW)
-- expect query: O from S (WINDOW)
-- expect query: O from Held (WINDOW)
-- expect query: O from S (WINDOW)
-- expect query: O from S (INSERT ALL EVENTS)
-- expect query: O from S (INSERT CURRENT EVENTS)
-- expect query: Held from S
@App:name('every-window')
@App:qlVersion('2')
CREATE STREAM S (id string, price float, at long);
CREATE WINDOW Held (id string, price float) EXPRESSION('count()<40');
create window Batch(id string) TUMBLING_TIME(1 second) output expired events;
CREATE SINK O WITH (type='log') (id string);
INSERT INTO O SELECT id FROM S WINDOW TUMBLING_LENGTH(4);
INSERT INTO O SELECT id FROM S WINDOW TUMBLING_TIME;
INSERT INTO O SELECT id FROM S window session(1 min, id, 20 sec) GROUP BY id;
INSERT INTO O SELECT id FROM S WINDOW SLIDING_EXTERNAL_TIME(at, 5 sec);
INSERT INTO O SELECT id FROM S WINDOW CRON('*/5 * * * * ?');
INSERT INTO O SELECT id FROM S WINDOW SORT(5, price, 'asc', id, 'desc');
INSERT INTO O SELECT id FROM S[price > 1] WINDOW UNIQUE:firstTimeBatch(id, 1 sec)[price < 5];
INSERT INTO O SELECT id FROM Held WINDOW SLIDING_EXPRESSION('count()<=20 and last.at - first.at < 5000');
INSERT INTO O SELECT id FROM S window delay(1 hour) as late;
INSERT ALL events INTO O SELECT id FROM S window time(1 min);
INSERT current events INTO O SELECT id FROM S;
INSERT INTO Held SELECT id, price FROM S;
