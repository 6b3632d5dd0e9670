-- expect worker windows
-- expect stream In: stream (id int, temp double)
-- expect window Last
-- expect topic c8locals.In: read (id int, temp double)
-- expect query: Last from In
-- expect query: Hot from Last (GROUP BY)
-- expect query: Old from Last (INSERT EXPIRED EVENTS)
-- expect query: Few from In (WINDOW)
@App:name('windows') @App:qlVersion('2')
CREATE STREAM In (id int, temp double);
CREATE WINDOW Last (id int, temp double) SLIDING_TIME(1 min) OUTPUT ALL EVENTS;
INSERT INTO Last FROM In;
INSERT INTO Hot SELECT id, max(temp) AS temp FROM Last GROUP BY id HAVING temp > 40;
INSERT EXPIRED EVENTS INTO Old SELECT id FROM Last;
INSERT INTO Few SELECT id FROM In WINDOW TUMBLING_LENGTH(10) ORDER BY id DESC LIMIT 3 OFFSET 1;
