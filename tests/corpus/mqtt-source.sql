-- expect worker mqtt-source
-- expect source Readings: mqtt (device string, value double)
-- expect table ReadingsTable: global collection ReadingsTable (device string, value double)
-- expect query: ReadingsTable from Readings
@App:name("mqtt-source")
@App:description('Reads a broker itself, "without" a bridge; really')
@App:qlVersion("2")
CREATE SOURCE Readings WITH (type='mqtt', url='tcp://broker.example:1883', topic='plant/+/temp',
    quality.of.service='1', clean.session='false', keep.alive=60, map.type='json')
    (device string, value double);
CREATE TABLE GLOBAL ReadingsTable (device string, value double);
INSERT INTO ReadingsTable SELECT device, value FROM Readings[value > -40.0 and value < 125];
