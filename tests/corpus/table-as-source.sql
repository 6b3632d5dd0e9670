-- expect worker table-as-source
-- expect table Orders: local collection Orders (_key string, amount double, customer string)
-- expect source OrderChanges: database (_key string, amount double)
-- expect sink stream Big: stream (amount double)
-- expect topic c8locals.Big: written (amount double)
-- expect query: Big from OrderChanges
-- expect query: Big from Orders, OrderChanges (an alias)
@App:name('table-as-source') @App:qlVersion('2')
CREATE TABLE Orders (_key string, amount double, customer string);
CREATE SOURCE OrderChanges WITH (type='database', collection='Orders', collection.type='doc',
    replication.type='global', map.type='json') (_key string, amount double);
CREATE SINK STREAM Big (amount double);
INSERT INTO Big SELECT amount FROM OrderChanges[amount > 1000];
INSERT INTO Big SELECT o.amount FROM Orders AS o JOIN OrderChanges AS c ON o._key == c._key;
