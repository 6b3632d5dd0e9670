-- expect worker patterns
-- expect stream Door: stream (id int, open bool)
-- expect stream Heat: stream (id int, temp double)
-- expect topic c8locals.Door: read (id int, open bool)
-- expect topic c8locals.Heat: read (id int, temp double)
-- expect query: Waste from Door, Heat (an indexed event of a pattern)
-- expect query: Peak from Heat (a pattern)
-- expect query: Forgotten from Door (a pattern)
-- expect query: Both from Door, Heat (a pattern)
@App:name('patterns') @App:qlVersion('2')
CREATE STREAM Door (id int, open bool);
CREATE STREAM Heat (id int, temp double);
INSERT INTO Waste SELECT e1.id, e2[last].temp AS temp
FROM every e1=Door[open == true] -> e2=Heat[temp > e1.id]<2:> WITHIN 10 min;
INSERT INTO Peak SELECT e2.temp AS temp FROM every e1=Heat, e2=Heat[e1.temp <= temp]+, e3=Heat;
INSERT INTO Forgotten SELECT e1.id FROM e1=Door[open] -> not Door[not open] for 5 min;
INSERT INTO Both SELECT e2.temp AS temp FROM every (e1=Door and e2=Heat);
