-- expect worker source-dot-type
-- expect source Readings: stream (id string, value double)
-- expect source Stock: database (?)
-- expect source Positions: database (?)
-- expect sink Rates: kafka (id string)
-- expect topic c8locals.raw: read (id string, value double)
-- expect topic c8locals.rawer: read (id string, value double)
-- expect query: Rates from Readings
@App:name('source-dot-type')
@App:qlVersion('2')
CREATE SOURCE Readings WITH (source.type='stream', streams.list='raw,rawer', map.type='json')
    (id string, value double);
CREATE SOURCE Stock WITH (source.type='database', collection='stock', map.type='json',
    enclosing.element="$.portfolio",) (symbol = "stock.company.symbol", price = "stock.price");
CREATE SOURCE Positions WITH (source.type='database', collection='stock', map.type='json',) ("stock.at", "stock.by");
CREATE SINK Rates WITH (sink.type='kafka', topic='{{id}}', map.type='json', distribution.strategy='partitioned',
    partitionKey='id', destination.a='x', destination.b='y') (id string);
INSERT INTO Rates SELECT id FROM Readings;
