-- expect worker table-conditions
-- expect table Rooms: local collection Rooms (_key string, people int)
-- expect store Known: global collection known (room string)
-- expect stream Moves: stream (room string, arrival int, exit int)
-- expect topic c8locals.Moves: read (room string, arrival int, exit int)
-- expect query occupy: Rooms from Moves (UPDATE)
-- expect query all: Rooms from Moves (UPDATE)
-- expect query expire: Rooms from Moves (UPDATE)
-- expect query upsert: Rooms from Moves (UPDATE OR INSERT)
-- expect query bare: Rooms from Moves (UPDATE OR INSERT)
-- expect query drop: Rooms from Moves (DELETE)
-- expect query once: Rooms from  (DELETE)
-- expect query known: Seen from Moves (IN)
-- expect query unknown: Seen from Moves (IN)
-- expect query poll: Seen from Rooms
-- expect table read as a stream: Rooms
@App:name('table-conditions')
@App:qlVersion('2')
CREATE TABLE Rooms (_key string, people int);
CREATE STORE Known WITH(type="database", collection="known", PrimaryKey='room', Index='a', Index='b')(room string);
CREATE STREAM Moves (room string, arrival int, exit int);
@info(name='occupy')
UPDATE Rooms
SET Rooms.people = Rooms.people + arrival - exit, Rooms._key = room
ON Rooms._key == room

SELECT *
FROM Moves;
@info(name='all') update Rooms on Rooms._key == room select room as _key, arrival as people from Moves;
@info(name='expire') UPDATE Rooms FOR expired events SET Rooms.people = 0 ON Rooms._key == room FROM Moves;
@info(name='upsert')
UPDATE or INSERT INTO Rooms
SET Rooms.people = people
ON Rooms._key == _key
SELECT room as _key, arrival - exit as people FROM Moves;
@info(name='bare') update or insert into Rooms on Rooms._key == _key select room as _key, exit as people from Moves;
@info(name='drop') DELETE Rooms FOR ALL EVENTS ON Rooms._key == room AND exit > 5 FROM Moves;
@info(name='once') DELETE Rooms ON Rooms.people == 10;
@info(name='known') INSERT INTO Seen FROM Moves[Known.room == room in Known];
@info(name='unknown') INSERT INTO Seen SELECT room FROM Moves[not (Known.room == room in Known) and exit > 0];
@info(name='poll') INSERT INTO Seen SELECT _key AS room FROM Rooms;
