-- expect worker aggregations
-- expect stream Sales: stream (brand string, price double, timestamp long)
-- expect aggregation SalesByTime
-- expect aggregation Coarse
-- expect stream Ask: stream (brand string)
-- expect topic c8locals.Sales: read (brand string, price double, timestamp long)
-- expect topic c8locals.Ask: read (brand string)
-- expect query: Answer from Ask, SalesByTime (an alias)
@App:name('aggregations') @App:qlVersion('2')
CREATE STREAM Sales (brand string, price double, timestamp long);
CREATE AGGREGATION SalesByTime WITH(store.type='database', store.replication.type='global')
    SELECT brand, avg(price) AS price, count() AS count FROM Sales
    GROUP BY brand AGGREGATE BY timestamp EVERY sec...year;
CREATE AGGREGATION Coarse SELECT sum(price) AS price FROM Sales AGGREGATE EVERY min, hour, day;
CREATE STREAM Ask (brand string);
INSERT INTO Answer SELECT a.brand, a.price FROM Ask AS b JOIN SalesByTime AS a ON a.brand == b.brand
    WITHIN "2026-01-01 00:00:00 +00:00", "2026-02-01 00:00:00 +00:00" PER "days";
