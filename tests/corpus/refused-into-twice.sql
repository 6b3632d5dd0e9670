-- refused 5:20 expected SELECT or FROM after the target, found 'into'
@App:name('refused-into-twice')
@App:qlVersion('2')
CREATE STREAM Rooms (room int, temp double);
INSERT INTO events into Whole SELECT room, math:floor(temp) AS temp FROM Rooms;
