-- expect worker without a name
-- expect stream In: stream (id string)
-- expect topic c8locals.In: not queried (id string)
-- not run 1:1 expected @App:name
@App:qlVersion('2')
CREATE STREAM In (id string);
