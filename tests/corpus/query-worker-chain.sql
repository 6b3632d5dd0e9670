-- expect worker query-worker-chain
-- expect query-worker Counts
-- expect source CountsTold: query-worker (value long, time string)
-- expect trigger Clock
-- expect trigger Early
-- expect query-worker Later
-- expect sink Named: query-worker (startTime string)
-- expect sink stream Out: stream (value long, time string)
-- expect topic c8locals.Out: written (value long, time string)
-- expect query: Counts from Clock
-- expect query: Out from CountsTold
@App:name('query-worker-chain')
@App:qlVersion('2')
CREATE QUERY-WORKER Counts WITH (query='FOR i IN 1..3 return { value: i, time: @startTime } ') (startTime string);
CREATE SOURCE CountsTold WITH (type='query-worker', `sink.id`="Counts", map.type="json") (value long, time string);
CREATE TRIGGER Clock WITH(interval= 10 sec);
CREATE TRIGGER Early at every 5 min;
CREATE QUERY-WORKER Later WITH (query="""FOR i IN 4..6
    return { value: i, time: @startTime }""") (startTime string)
AS SELECT time:dateFormat(eventTimestamp(), 'yyyy/MM/dd HH:mm:ss') as startTime
FROM Clock;
CREATE SINK Named WITH (type='query-worker', query.worker.name="named")(startTime string);
CREATE SINK STREAM Out(value long, time string);
INSERT INTO Counts SELECT time:dateFormat(eventTimestamp(), 'yyyy/MM/dd HH:mm:ss') as startTime FROM Clock;
INSERT INTO Out SELECT * FROM CountsTold;
