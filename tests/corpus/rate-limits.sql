-- expect worker rate-limits
-- expect stream In: stream (id string, temp double)
-- expect sink stream Slow: stream (id string, temp double)
-- expect topic c8locals.In: read (id string, temp double)
-- expect topic c8locals.Slow: written (id string, temp double)
-- expect query: Slow from In (GROUP BY)
-- expect query: Slow from In (OUTPUT)
-- expect query: Slow from In (OUTPUT)
-- expect query: Slow from In (WINDOW)
-- expect query: Slow from In (ORDER BY)
-- expect query: Slow from In (LIMIT)
-- expect query: Slow from In (HAVING)
@App:name('rate-limits')
@App:qlVersion('2')
CREATE STREAM In (id string, temp double);
CREATE SINK STREAM Slow (id string, temp double);
insert into Slow select id, max(temp) as temp from In group by id output last every 10 events;
insert into Slow from In output every 10 sec;
INSERT INTO Slow SELECT * FROM In OUTPUT FIRST EVERY 1 min;
insert into Slow from In window sliding_time(5 sec) output snapshot every 1 sec;
INSERT INTO Slow SELECT id, temp FROM In ORDER BY temp DESC, id asc LIMIT 3 OFFSET 2;
INSERT INTO Slow SELECT id, temp FROM In LIMIT 1;
INSERT INTO Slow SELECT id, temp FROM In HAVING temp > 20.0;
