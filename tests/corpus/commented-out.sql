-- expect worker commented-out
-- expect stream New: stream (a int)
-- expect table t: local collection t (a int, c int)
-- expect topic c8locals.New: read (a int)
-- expect query copy: t from New
@App:name('commented-out')
@App:qlVersion('2')
-- @App:instances('4')
/*
  CREATE STREAM Old (a int);  -- was
  INSERT INTO t SELECT a FROM Old;
*/
-------------------------------------------------
CREATE STREAM New (a int); // CREATE STREAM Newer (a int);
/** CREATE TABLE t (a int); **/
CREATE TABLE t (a int, -- b int,
                c int /* , d int */);
@info(name='copy') -- the only one
-- INSERT INTO t SELECT b FROM New;
INSERT INTO t
SELECT a, /* b, */ a * 2 AS c -- , d
FROM New;
