-- expect worker cdc-collection
-- expect source Traffic: database (ip string)
-- expect table Blocked: local collection Blocked (blocked_ip string)
-- expect sink stream Alarm: stream (ip string, requests long, at long)
-- expect topic c8locals.Alarm: written (ip string, requests long, at long)
-- expect query: Alarm from Traffic, Blocked (WINDOW)
@App:name("cdc-collection")
@App:description('Watches a collection and tells of what a table knows already.')
@App:qlVersion('2')

/**
Try it:

    1. Fill `Blocked`; it's made on activation
    2. Add documents { "ip": "…" } to `traffic`
*/

CREATE SOURCE Traffic WITH (type = 'database', collection = "traffic", collection.type="doc" , replication.type="global", map.type='json') (ip string);

CREATE TABLE Blocked (blocked_ip string);

CREATE SINK STREAM Alarm (ip string, requests long , at long);

INSERT INTO Alarm
SELECT ip, count(ip) as requests, currentTimeMillis() as at
FROM Traffic WINDOW SLIDING_TIME(2 sec) as t
JOIN Blocked as b
ON  t.ip == b.blocked_ip
WHERE requests > 50
GROUP BY ip;
