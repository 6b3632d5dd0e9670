-- expect worker errors
-- expect stream In: stream (a int)
-- expect stream Side: stream (a int)
-- expect sink Log: log (a int, _error object)
-- expect topic c8locals.In: read (a int)
-- expect topic c8locals.Side: not queried (a int)
-- expect query: Log from !In (a fault stream)
-- expect query: Side from In
@App:name('errors') @App:qlVersion('2')
CREATE STREAM In WITH (OnError.action='stream') (a int);
@OnError(action='log')
CREATE STREAM Side (a int);
CREATE SINK Log WITH (type='log') (a int, _error object);
INSERT INTO Log SELECT a, _error FROM !In;
INSERT INTO Side SELECT a FROM In[NOT (a is null) AND a % 2 == 0];
