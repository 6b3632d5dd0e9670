-- refused 1:1 add @App:qlVersion("2") at the top
@App:name('refused-without-version')
CREATE STREAM In (symbol string, price float);
CREATE SINK Out WITH (type='kafka', topic='t', bootstrap.servers='k.example:9092', map.type='json') (symbol string);
insert into Out from In select symbol;
