-- expect worker absent-events
-- expect stream Taxi: stream (id string, lat double, lon double)
-- expect stream Paid: stream (id string)
-- expect stream Help: stream (id string)
-- expect sink Office: http (id string, note string)
-- expect topic c8locals.Taxi: read (id string, lat double, lon double)
-- expect topic c8locals.Paid: read (id string)
-- expect topic c8locals.Help: read (id string)
-- expect query late: Office from Taxi (a pattern)
-- expect query unpaid: Office from Taxi, Paid (a pattern)
-- expect query lost: Office from Taxi, Help (a pattern)
-- expect query first: Office from Help, Taxi (a pattern)
-- expect query counted: Office from Help, Taxi (an indexed event of a pattern)
@App:name('absent-events')
@App:qlVersion('2')
CREATE STREAM Taxi (id string, lat double, lon double);
CREATE STREAM Paid (id string);
CREATE STREAM Help (id string);
CREATE SINK Office WITH (type='http', publisher.url='http://office.example:8080/in', map.type = 'json')
    (id string, note string);
@info(name='late')
INSERT INTO Office SELECT Taxi.id, 'late' AS note
FROM NOT Taxi[lat == 44.5 AND lon == 8.25] FOR 15 minutes OR NOT Taxi[lat == 43.5 AND lon == 8.75] FOR 15 minutes;
@info(name='unpaid')
INSERT INTO Office SELECT e1.id, 'unpaid' AS note
FROM e1=Taxi[lat > 0] -> NOT Paid[e1.id == id] for 30 sec;
@info(name='lost')
INSERT INTO Office SELECT e2.id, 'lost' AS note
FROM not Taxi[lat > 0] for 1 hour and e2=Help;
@info(name='first')
INSERT INTO Office SELECT e1.id AS id, ifThenElse( e2 is null, 'none', 'some' ) AS note
FROM every( e1 = Help[ id != '' ] ) ->
      e2=Taxi[ e1.id == id and lat > 0 ] OR e3=Help[ e1.id == id ]
HAVING note != 'none'          ;
@info(name='counted')
INSERT INTO Office SELECT e1.id, convert(e2[0].lat - e2[last].lat, 'string') AS note
FROM every( e1 = Help)
    -> e2 = Taxi[e1.id == id] < 1: >
    -> e3 = Help[e1.id == id]<:5>
    -> e4 = Taxi<2:4> -> e5 = Taxi<3> within 1 day;
