-- expect worker triggers
-- expect trigger Tick
-- expect trigger Noon
-- expect trigger Boot
-- expect sink Log: log (triggered_time long)
-- expect query: Log from Tick
-- expect query: Log from Noon
@App:name('triggers') @App:qlVersion('2')
CREATE TRIGGER Tick WITH ( interval = 5 sec );
CREATE TRIGGER Noon WITH (expression='0 0 12 * * ?');
CREATE TRIGGER Boot WITH (expression = 'start');
CREATE SINK Log WITH (type='log', prefix='TICK', priority=INFO) (triggered_time long);
INSERT INTO Log SELECT triggered_time FROM Tick;
INSERT INTO Log SELECT time:timestampInMilliseconds() / 1000 AS triggered_time FROM Noon;
