-- expect worker sink-topic
-- expect stream Ticks: stream (symbol string, price float)
-- expect sink Fixed: stream (symbol string, price float)
-- expect sink ByEvent: stream (symbol string, price float)
-- expect sink Bracketed: stream (price float)
-- expect topic c8locals.Ticks: read (symbol string, price float)
-- expect topic c8locals.stock: written (symbol string, price float)
-- expect topic c8globals.Peak]:: written (price float)
-- expect query: Fixed from Ticks
-- expect query: ByEvent from Ticks
-- expect query: Bracketed from Ticks
@App:name('sink-topic')
@App:qlVersion('2')
CREATE STREAM Ticks (symbol string, price float);
CREATE SINK Fixed WITH (type='stream', topic='stock', map.type='text', map.event.grouping.enabled='true',
    map.mustache.enabled='true', map.payload="{{{symbol}}}/{{{price}}}/=") (symbol string, price float);
CREATE SINK ByEvent WITH (type='stream', stream='{{symbol}}', map.type='json', map.validate.json='true',
    map.payload="""{"Symbol":"{{symbol}}","Price":{{price}}}""") (symbol string, price float);
CREATE SINK Bracketed WITH (type='stream', stream.list='Peak]:', stream.type='local', replication.type="Global",
    key.shared.attributes="price") (price float);
INSERT INTO Fixed FROM Ticks;
INSERT INTO ByEvent FROM Ticks;
INSERT INTO Bracketed SELECT price FROM Ticks;
