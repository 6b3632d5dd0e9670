-- expect worker odd-annotations
-- expect stream In: stream (a int)
-- expect topic c8locals.In: read (a int)
-- expect query first: One from In
-- expect query second: Two from In
-- expect query third: Three from In
-- expect query fourth: Four from In
@app:name("odd-annotations")
@app:playback(idle.time = '100 millisec', increment = 2 sec)
@App:instances('3')
@App:qlVersion(2)
@Async(buffer.size=1024, workers=2, batch.size.max=10)
CREATE STREAM In (a int);
@infor(name = "first") INSERT INTO One SELECT a FROM In;
@info('second') INSERT INTO Two SELECT a FROM In;
@name('third') INSERT INTO Three SELECT a FROM In;
@dist(execGroup="g", @nested(x='y', @deeper), parallel='2') @INFO(name='fourth')
INSERT INTO Four SELECT a FROM In;
