-- expect worker read-in-odd-places
-- expect stream InPartition: stream (k string)
-- expect stream InAggregation: stream (k string, v double)
-- expect stream InWorker: stream (k string)
-- expect stream InPattern: stream (k string)
-- expect stream InJoin: stream (k string)
-- expect stream order: stream (k string)
-- expect stream InCreate: stream (k string)
-- expect stream OtherCase: stream (k string)
-- expect stream OnlyFilled: stream (k string)
-- expect partition
-- expect aggregation Sums
-- expect query-worker Ask
-- expect sink stream Made: stream (k string)
-- expect topic c8locals.InPartition: read (k string)
-- expect topic c8locals.InAggregation: read (k string, v double)
-- expect topic c8locals.InWorker: read (k string)
-- expect topic c8locals.InPattern: read (k string)
-- expect topic c8locals.InJoin: read (k string)
-- expect topic c8locals.order: read (k string)
-- expect topic c8locals.InCreate: read (k string)
-- expect topic c8locals.OtherCase: read (k string)
-- expect topic c8locals.OnlyFilled: not queried (k string)
-- expect topic c8locals.Made: written (k string)
-- expect query: Out from InPattern, order (a pattern)
-- expect query: Out from order, InJoin (an alias)
-- expect query: Made from InCreate (CREATE SINK STREAM … AS SELECT)
-- expect query: Out from othercase
@App:name('read-in-odd-places')
@App:qlVersion('2')
CREATE STREAM InPartition (k string);
CREATE STREAM InAggregation (k string, v double);
CREATE STREAM InWorker (k string);
CREATE STREAM InPattern (k string);
CREATE STREAM InJoin (k string);
CREATE STREAM order (k string);
CREATE STREAM InCreate (k string);
CREATE STREAM OtherCase (k string);
CREATE STREAM OnlyFilled (k string);
PARTITION WITH (k OF InPartition) BEGIN
    INSERT INTO OnlyFilled SELECT k FROM InPartition;
END;
CREATE AGGREGATION Sums SELECT k, sum(v) AS v FROM InAggregation GROUP BY k AGGREGATE EVERY sec ... day;
CREATE QUERY-WORKER Ask WITH (query='FOR o IN OnlyFilled FILTER o.k == @k RETURN o') (k string)
    AS SELECT k FROM InWorker;
INSERT INTO Out SELECT e2.k FROM every e1=InPattern -> e2=order WITHIN 1 hour;
INSERT INTO Out SELECT a.k FROM order AS a JOIN InJoin WINDOW SLIDING_TIME(1 min) AS b ON a.k == b.k;
CREATE SINK STREAM Made (k string) AS SELECT k FROM InCreate;
INSERT INTO Out SELECT k FROM othercase;
