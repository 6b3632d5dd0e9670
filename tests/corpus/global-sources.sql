-- expect worker global-sources
-- expect source Fleet: stream (vehicle string, speed double)
-- expect source GLOBAL: stream (vehicle string)
-- expect source Loose: stream (vehicle string, speed double)
-- expect sink LOCAL: stream (vehicle string)
-- expect sink stream Fast: stream (vehicle string, speed double)
-- expect stream local: stream (vehicle string)
-- expect topic c8globals.fleet_east: read (vehicle string, speed double)
-- expect topic c8globals.fleet_west: read (vehicle string, speed double)
-- expect topic c8locals.named: not queried (vehicle string)
-- expect topic c8locals.loose: read, nulls and all (vehicle string, speed double)
-- expect topic c8globals.out: written (vehicle string)
-- expect topic c8globals.Fast: written (vehicle string, speed double)
-- expect topic c8locals.local: not queried (vehicle string)
-- expect query: Fast from Fleet
-- expect query: LOCAL from Loose
@App:name('global-sources')
@App:qlVersion('2')
@App:instances("8")
CREATE SOURCE GLOBAL Fleet WITH(type="stream", stream.list="fleet_east , fleet_west", num.consumers='4',
    subscription.type="Key_Shared", subscription.name='sub1', subscription.initial.position='Earliest',
    receiver.queue.size='500', map.type='json')(vehicle string, speed double);
CREATE SOURCE GLOBAL WITH (type='stream', stream.list='named') (vehicle string);
CREATE SOURCE Loose WITH (type='stream', stream.list='loose', map.type='json', fail.on.missing.attribute='false')
    (vehicle string, speed double);
CREATE SINK LOCAL WITH (type='stream', stream='out', replication.type='GLOBAL') (vehicle string);
CREATE SINK STREAM Fast GLOBAL (vehicle string, speed double);
CREATE STREAM local (vehicle string);
INSERT INTO Fast SELECT vehicle, speed FROM Fleet[speed > 130];
INSERT INTO LOCAL SELECT vehicle FROM Loose;
