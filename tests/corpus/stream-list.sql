-- expect worker stream-list
-- expect source Plants: stream (plant string, load double)
-- expect sink Total: stream (load double)
-- expect topic c8globals.north: read (plant string, load double)
-- expect topic c8globals.south: read (plant string, load double)
-- expect topic c8locals.total: written (load double)
-- expect query: Total from Plants (WINDOW)
@App:name('stream-list') @App:qlVersion("2")
CREATE SOURCE Plants WITH (type='stream', stream.list='north, south', replication.type='global',
    subscription.type='Shared', subscription.initial.position='Earliest', map.type='json')
    (plant string, load double);
CREATE SINK Total WITH(type='stream',stream='total',replication.type='LOCAL',map.type='json')(load double);
INSERT INTO Total SELECT sum(load) AS load FROM Plants WINDOW TUMBLING_TIME(1 min);
