-- expect worker comments-everywhere
-- expect stream A: stream (x int, y string)
-- expect sink B: http (x int)
-- expect topic c8locals.A: read (x int, y string)
-- expect query q: B from A
/** The first thing is a comment: @App:name('wrong'); **/
@App:name('comments-everywhere') -- the name
// a line that some pages begin like this
@App:qlVersion('2') /* the version */
/* CREATE STREAM A (gone int); */
CREATE /* in */ STREAM -- between
A ( -- here
    x int, /* and here */ y string -- and there
); -- after
CREATE SINK B WITH(type='http', -- a comment in WITH
    /* another */ publisher.url='https://a.example//b--c', method=POST, target=http://b.example/x) (x int);
/**/
@info(name='q') /* between an annotation and its query */
-- and one more; with a semicolon
INSERT INTO B -- to
SELECT x -- , y
/* FROM nowhere */
FROM A[x > 1 -- of the small ones nothing
       and y != '-- no comment'];
-- the end
