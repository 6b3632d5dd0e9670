-- expect worker without a name
-- expect version not said
-- expect stream Doors: stream (door string, open bool, since long)
-- expect window Lately
-- expect topic c8locals.Doors: read (door string, open bool, since long)
-- expect query: Lately from Doors
-- expect query open doors: Opened from Lately (INSERT EVENTS)
-- expect query: Counted from Opened, Doors (an alias)
-- expect query: Approximate from Doors (an expression without AS)
-- not run 1:1 expected @App:name
CREATE STREAM Doors (door string, open bool, since long);
CREATE WINDOW Lately (door string, open bool, since long) WINDOW TUMBLING_TIME(20 sec) output all events;
insert into Lately from Doors;
@info(name = 'open doors') INSERT events INTO Opened SELECT door FROM Lately;
INSERT INTO Counted SELECT o.door, count() AS count FROM Opened AS o JOIN Doors AS d ON o.door = d.door;
INSERT INTO Approximate SELECT math:round(since), str:upper(door) FROM Doors
