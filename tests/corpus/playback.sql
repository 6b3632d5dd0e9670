-- expect worker playback
-- expect stream Old: stream (id string, at long)
-- expect sink Printed: log (id string)
-- expect topic c8locals.Old: read (id string, at long)
-- expect query: Printed from Old (WINDOW)
@App:name('playback')
@App:qlVersion('2')
@app:playback(idle.time = '100 millisecond', increment = '2 sec')
@app:statistics(reporter = 'prometheus', interval=5 min)
@app:async(buffer.size='512', workers='2')
@source
@Dist(parallel = '2', execGroup='g', @placement(zone='a', @pinned))
CREATE STREAM Old (id string, at long);
CREATE SINK Printed WITH (type='log', prefix='OLD') (id string);
INSERT INTO Printed SELECT id FROM Old WINDOW TUMBLING_EXTERNAL_TIME(at, 1 hour)
