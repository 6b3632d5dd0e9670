-- expect worker unread
-- expect stream Used: stream (id string)
-- expect stream Forgotten: stream (id string)
-- expect source Left: stream (id string)
-- expect source Right: stream (id string)
-- expect stream Target: stream (id string)
-- expect sink stream Echo: stream (id string)
-- expect table T: local collection T (id string)
-- expect topic c8locals.Used: read (id string)
-- expect topic c8locals.Forgotten: not queried (id string)
-- expect topic c8locals.left: not queried (id string)
-- expect topic c8locals.both: read (id string)
-- expect topic c8locals.right: read (id string)
-- expect topic c8locals.Target: not queried (id string)
-- expect topic c8locals.Echo: written (id string)
-- expect query: Target from Used
-- expect query: T from Right (WINDOW)
-- expect query: Echo from Used (WHERE)
@App:name('unread')
@App:qlVersion('2')
CREATE STREAM Used (id string);
CREATE STREAM Forgotten (id string);
CREATE SOURCE Left WITH (type='stream', stream.list='left,both') (id string);
CREATE SOURCE Right WITH (type='stream', stream.list='both,right') (id string);
CREATE STREAM Target (id string);
CREATE SINK STREAM Echo (id string);
CREATE TABLE T (id string);
INSERT INTO Target SELECT id FROM Used;
INSERT INTO T SELECT id FROM Right WINDOW SLIDING_LENGTH(3);
-- INSERT INTO T SELECT id FROM Forgotten;
/* INSERT INTO T SELECT id FROM Left; */
INSERT INTO Echo SELECT 'Forgotten, Left' AS id FROM Used WHERE id == "Forgotten";
