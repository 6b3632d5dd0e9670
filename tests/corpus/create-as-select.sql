-- expect worker create-as-select
-- expect stream In: stream (symbol string, price float)
-- expect table Dear: local collection Dear (symbol string, price float)
-- expect stream Cheap: stream (?)
-- expect topic c8locals.In: read (symbol string, price float)
-- expect topic c8locals.Cheap: not queried (?)
-- expect query dear: Dear from In (CREATE TABLE … AS SELECT)
-- expect query: Cheap from In (CREATE STREAM … AS SELECT)
@App:name('create-as-select') @App:qlVersion('2')
CREATE STREAM In (symbol string, price float);
@info(name='dear') CREATE TABLE Dear (symbol string, price float) WITH (batch.size='10')
    AS SELECT symbol, price FROM In[price > 500] WINDOW SLIDING_LENGTH(1);
CREATE STREAM Cheap AS SELECT symbol FROM In[price < 1];
