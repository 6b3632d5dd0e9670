-- expect worker partition
-- expect stream Rooms: stream (room int, temp double, start long, end long)
-- expect sink stream Averages: stream (room int, temp double)
-- expect partition
-- expect topic c8locals.Rooms: read (room int, temp double, start long, end long)
-- expect topic c8locals.Averages: written (room int, temp double)
-- expect query: Averages from Rooms
@App:name('partition') @App:qlVersion('2')
CREATE STREAM Rooms (room int, temp double, start long, end long);
CREATE SINK STREAM Averages (room int, temp double);
@purge(enable='true', interval='10 sec', @idle(period='1 hour'))
PARTITION WITH (room OF Rooms)
BEGIN
    @info(name='inner')
    INSERT INTO #spread SELECT room, temp, end - start AS end FROM Rooms GROUP BY end;
    INSERT INTO Averages SELECT room, avg(temp) AS temp FROM #spread WINDOW SLIDING_TIME(5 min);
END;
INSERT INTO Averages SELECT room, temp FROM Rooms[end is null];
