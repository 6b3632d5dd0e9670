-- expect worker joins
-- expect stream Heat: stream (room int, temp double)
-- expect stream Damp: stream (room int, damp double)
-- expect table Rooms: global collection Rooms (room int, name string)
-- expect window Recent
-- expect aggregation Daily
-- expect sink stream Both: stream (room int, temp double, damp double)
-- expect topic c8locals.Heat: read (room int, temp double)
-- expect topic c8locals.Damp: read (room int, damp double)
-- expect topic c8locals.Both: written (room int, temp double, damp double)
-- expect query inner: Both from Heat, Damp (WINDOW)
-- expect query left: Both from Heat, Damp (an alias)
-- expect query right: Both from Heat, Damp (WINDOW)
-- expect query full: Both from Heat, Damp (WINDOW)
-- expect query one way: Both from Heat, Damp (WINDOW)
-- expect query table: Named from Heat, Rooms (an alias)
-- expect query window: Counted from Heat, Recent (an alias)
-- expect query aggregate: Means from Heat, Daily (an alias)
-- expect query wildcard: Means from Heat, Daily (an alias)
-- expect query no alias: Named from Heat, Rooms (JOIN)
@App:name('joins')
@App:qlVersion('2')
CREATE STREAM Heat (room int, temp double);
CREATE STREAM Damp (room int, damp double);
CREATE TABLE GLOBAL Rooms (room int, name string);
CREATE WINDOW Recent (room int, temp double) time(2 min);
CREATE AGGREGATION Daily WITH (store.type='database', store.replication.type='global', purge.enable='true',
    purge.interval='10 sec', purge.retentionPeriod.sec='120 sec', purge.retentionPeriod.years='all')
  select room, avg(temp) as mean from Heat group by room aggregate every sec ... year;
CREATE SINK STREAM Both (room int, temp double, damp double);

@info(name='inner')
INSERT INTO Both
SELECT h.room, h.temp, d.damp
FROM Heat[temp > 30.0] WINDOW SLIDING_LENGTH(1) AS h
  JOIN Damp[damp < 0.5][room > 0] WINDOW SLIDING_LENGTH(1) AS d
  ON h.room == d.room;
@info(name='left')
INSERT INTO Both SELECT h.room, h.temp, d.damp
FROM Heat AS h LEFT OUTER JOIN Damp WINDOW SLIDING_TIME(1 min) AS d ON h.room== d.room;
@info(name='right')
INSERT INTO Both SELECT d.room, h.temp, d.damp
FROM Heat window unique:time(room, 1 min) as h right outer join Damp as d on h.room == d.room;
@info(name='full')
INSERT INTO Both SELECT d.room, h.temp, d.damp
FROM Heat WINDOW SLIDING_TIME(1 min) AS h full outer join Damp WINDOW SLIDING_TIME(1 min) AS d ON h.room == d.room
WHERE temp > 3.0;
@info(name='one way')
INSERT INTO Both SELECT d.room, h.temp, d.damp
FROM Heat WINDOW LENGTH(1) unidirectional AS h JOIN Damp WINDOW LENGTH(1) AS d ON h.room == d.room and d.damp > 0;
@info(name='table')
INSERT INTO Named SELECT r.name, h.temp FROM Heat AS h JOIN Rooms AS r ON r.room == h.room;
@info(name='window')
INSERT INTO Counted SELECT h.room, count(w.temp) AS n FROM Heat AS h JOIN Recent AS w ON w.temp > 40;
@info(name='aggregate')
INSERT INTO Means SELECT a.room, a.mean
FROM Heat AS h JOIN Daily AS a ON a.room == h.room
    WITHIN "2026-02-15 00:00:00 +05:30", "2026-03-16 00:00:00 +05:30" PER "days";
@info(name='wildcard')
INSERT INTO Means SELECT a.room, a.mean
FROM Heat AS h JOIN Daily AS a ON a.room == h.room WITHIN "2026-02-15 **:**:** +05:30" PER h.room;
@info(name='no alias')
INSERT INTO Named SELECT Rooms.name, Heat.temp FROM Heat JOIN Rooms ON Rooms.room == Heat.room;
