-- expect worker without-version
-- expect version not said
-- expect stream In: stream (symbol string, price float)
-- expect sink Out: kafka (symbol string)
-- expect topic c8locals.In: read (symbol string, price float)
-- expect query: Out from In
-- not run 1:1 add @App:qlVersion("2") at the top
@App:name('without-version')
CREATE STREAM In (symbol string, price float);
CREATE SINK Out WITH (type='kafka', topic='t', bootstrap.servers='k.example:9092', map.type='json') (symbol string);
insert into Out from In select symbol;
