-- expect worker triple-quotes
-- expect stream Alerts: stream (device string, level int, order int)
-- expect sink Desk: http (device string, level int)
-- expect topic c8locals.Alerts: read (device string, level int, order int)
-- expect query: Desk from Alerts
@App:name("triple-quotes")
@App:description("""Sends "alerts" to the operator's desk;
-- not a comment, not /* either */ and no end;""")
@App:qlVersion("2")
CREATE STREAM Alerts (device string, level int, `order` int);
CREATE SINK Desk WITH (type='http', publisher.url="https://desk.example/alerts", method='POST',
    headers="'Authorization: Bearer x','X-Plant: 1'", map.type='json',
    map.payload="""{"text": "{{device}} is at {{level}}; it's high", "raw": {"a": [1, 2]}}""")
    (device string, level int);
INSERT INTO Desk SELECT device, level FROM Alerts[level >= 3];
