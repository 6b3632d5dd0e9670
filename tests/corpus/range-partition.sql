-- expect worker range-partition
-- expect stream Rooms: stream (room int, temp double)
-- expect table T: local collection T (room int, temp double)
-- expect partition
-- expect topic c8locals.Rooms: read (room int, temp double)
@App:name('range-partition') @App:qlVersion('2')
CREATE STREAM Rooms (room int, temp double);
CREATE TABLE T (room int, temp double);
PARTITION WITH (room >= 1000 AS 'server' OR room < 330 AS 'office' OF Rooms)
BEGIN
    INSERT INTO T SELECT * FROM Rooms
END
