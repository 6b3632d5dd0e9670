-- expect worker shortcuts
-- expect stream In: stream (id string, at long)
-- expect sink stream Out: stream (id string, at long)
-- expect sink stream Echo: stream (id string, at long)
-- expect topic c8globals.In: read (id string, at long)
-- expect topic c8globals.Out: written (id string, at long)
-- expect topic c8locals.Echo: written (id string, at long)
-- expect query: Out from In
-- expect query: Echo from In
@App:name('shortcuts') @App:qlVersion('2')
CREATE STREAM GLOBAL In (id string, at long);
CREATE SINK STREAM GLOBAL Out(id string, at long);
CREATE SINK STREAM Echo (id string, at long);
INSERT INTO Out FROM In;
INSERT INTO Echo SELECT * FROM In;
