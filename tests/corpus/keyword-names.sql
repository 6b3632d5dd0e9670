-- expect worker keyword-names
-- expect stream Events: stream (value double, type string, time long, count int, key string, user string, order int, event string, timestamp long, last double, close double, exchange string, select string)
-- expect table Events Table: local collection Events Table (value double, key string)
-- expect topic c8locals.Events: read (value double, type string, time long, count int, key string, user string, order int, event string, timestamp long, last double, close double, exchange string, select string)
-- expect query: Events Table from Events
@App:name('keyword-names') @App:qlVersion('2')
CREATE STREAM Events (value double, type string, time long, count int, key string, user string, order int,
    event string, timestamp long, last double, close double, exchange string, `select` string);
CREATE TABLE `Events Table` (value double, key string);
INSERT INTO `Events Table` SELECT value, str:concat(key, '-', user) AS key
FROM Events[type == 'a' and order > 0 and Events.last <= close * 2 or not (event is null)];
