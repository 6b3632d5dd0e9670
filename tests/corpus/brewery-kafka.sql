-- expect worker brewery-kafka
-- expect source Tanks: kafka (tank string, ph float, drawn long)
-- expect sink Alarms: kafka (tank string, ph float)
-- expect query sour: Alarms from Tanks
@App:name('brewery-kafka')
@App:description("From one Kafka to the same; 'drawn' counts litres")
@App:qlVersion('2')

CREATE SOURCE Tanks WITH (
    type='kafka',
    topic.list='tanks.north,tanks.south', partition.no.list='0,1',
    threading.option='partition.wise', group.id='brewery',
    bootstrap.servers='kafka-1.example:9092,kafka-2.example:9092',
    optional.configuration='auto.offset.reset:earliest,max.poll.records:10',
    map.type='json'
) (tank string, ph float, drawn long);

CREATE SINK Alarms WITH (type='kafka', topic='alarms.{{tank}}', partition.no='{{drawn}}', is.binary.message='false',
    bootstrap.servers='kafka-1.example:9092', map.type='json') (tank string, ph float);

-- the action, then FROM, then SELECT
@info(name = 'sour')
insert into Alarms
from Tanks[ph < 4.0f] select tank, ph ;
