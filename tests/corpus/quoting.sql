-- expect worker it's "quoted"
-- expect stream In Stream: stream (device-id string, select int, from long, room no int)
-- expect table $test(0): local collection $test(0) (id string)
-- expect sink Out: log (device-id string)
-- expect topic c8locals.In Stream: read (device-id string, select int, from long, room no int)
-- expect query the 'first' one: $test(0) from In Stream
-- expect query: Out from In Stream (WINDOW)
@App:name("""it's "quoted"""")
@App:description('commas, ; semicolons, -- dashes, /* stars */ and
a second line; @App:name("not this")')
@App:qlVersion("""2""")
CREATE STREAM `In Stream` (`device-id` string, `select` int, `from` long, `room no` int);
CREATE TABLE `$test(0)` (id string);
CREATE SINK Out WITH (type = "log", `prefix` = 'a "double" in single', 'priority' = INFO, note = "a 'single' in double",
    regex = '\d+\.\w', path = "C:\\dir\\", said = 'it\'s', nothing = '', triple = """
  'one', "two" and \d
""") (`device-id` string);
@info(name="the 'first' one")
INSERT INTO `$test(0)` SELECT str:concat(`device-id`, '\'', "\"", """'"'""") AS id
FROM `In Stream`[`select` == 1 and `In Stream`.`from` > 5L];
INSERT INTO Out SELECT `device-id` FROM `In Stream` WINDOW SLIDING_TIME(1 sec);
