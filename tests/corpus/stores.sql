-- expect worker stores
-- expect store Doc: local collection DocCollection (a int)
-- expect store Kv: global collection Kv (_key string, value object, expireAt long)
-- expect store Sql: global collection Sql (id int, at long)
-- expect index byA
-- expect index byKey
-- expect index byA
@App:name('stores') @App:qlVersion('2')
CREATE STORE Doc WITH (type='database', collection="DocCollection", replication.type='local') (a int);
CREATE STORE Kv WITH (type = 'database', collection.type="kv", kv.expiration='true')
    (_key string, value object, expireAt long);
CREATE STORE Sql WITH (type='rdbms', jdbc.url='jdbc:postgresql://db.example:5432/x', username='u',
    password='p', PrimaryKey='id', primarykey='at') (id int, at long);
CREATE UNIQUE INDEX byA ON TABLE Doc WITH (type='persistent', sparse='true') (a);
CREATE SECONDARY INDEX byKey ON STORE Kv WITH (type='global') (expireAt);
CREATE INDEX byA ON TABLE Sql WITH (type='hash') (id);
