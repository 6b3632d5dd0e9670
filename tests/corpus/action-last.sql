-- expect worker action-last
-- expect stream In: stream (room string, temp double)
-- expect stream Out: stream (room string, temp double)
-- expect table Rooms: local collection Rooms (room string, temp double)
-- expect topic c8locals.In: read (room string, temp double)
-- expect topic c8locals.Out: not queried (room string, temp double)
-- expect query Filtering: Out from In (SELECT before the action)
-- expect query: Rooms from In (SELECT before the action)
-- expect query: Rooms from In (SELECT before the action)
-- expect query: Out from In (SELECT before the action)
@App:name("action-last")
@App:qlVersion("2")
CREATE STREAM In (room string, temp double);
CREATE STREAM Out WITH (type='stream', stream='Out', map.type='json') (room string, temp double);
CREATE TABLE Rooms (room string, temp double);
@info(name = 'Filtering')
select *
from In [room=='2233']
insert into Out;
select room, temp from In window sliding_length(1) update or insert into Rooms on Rooms.room == room;
select room from In delete Rooms for expired events on Rooms.room == room;
select room, avg(temp) as temp from In#window.timeBatch(10 min) group by room insert expired events into Out
