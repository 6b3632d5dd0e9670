-- expect worker named-aggregation
-- expect stream Flow: stream (pipe string, litres double, at long)
-- expect aggregation FlowByHour
-- expect aggregation FlowByDay
-- expect topic c8locals.Flow: read (pipe string, litres double, at long)
@App:name('named-aggregation');
@App:qlVersion('2')
CREATE STREAM Flow (pipe string, litres double, at long);
CREATE AGGREGATION FlowByHour WITH(store.type='database', store.replication.type='global')

@info(name = 'sums of hours')
select pipe, sum(litres) as litres from Flow group by pipe aggregate by at every hour;
CREATE AGGREGATION FlowByDay @info('sums of days') @x select pipe from Flow aggregate every day;
