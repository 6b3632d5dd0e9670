-- expect worker fault-streams
-- expect trigger Clock
-- expect source Counts: inmemory (c long, t long)
-- expect fault stream !Counts
-- expect store Rows: global collection Rows (status string, count long)
-- expect sink RowErrors: stream (status string, count long, error string)
-- expect source Errors: stream (evt string)
-- expect table Kept: local collection Kept (event object, error object)
-- expect topic c8locals.errors: read (evt string)
-- expect query: Counts from Clock (an expression without AS)
-- expect query: CountErrors from !Counts (a fault stream)
-- expect query: Rows from Clock
-- expect query: RowErrors from !Rows (a fault stream)
-- expect query: Kept from Errors
@App:name('fault-streams')
@App:qlVersion('2')
CREATE TRIGGER Clock WITH ( interval = 5 sec );
@OnError(action='stream')
CREATE SOURCE Counts WITH (type='inMemory', map.type='passthrough', OnError.action='stream') (c long, t long);
-- what GDN makes of it by itself
CREATE STREAM !Counts (c long, t long, _error object);
CREATE STORE Rows WITH (
    type='database',
    replication.type="global",
    collection.type="doc",
    OnError.action='STREAM',
    on.error='STREAM'
) (status string, count long);
CREATE SINK RowErrors WITH (type='stream', stream='errors', map.type='json')
    (status string, count long, error string);
CREATE SOURCE Errors WITH (type='stream', stream.list='errors', map.type='json', map.attributes.evt = "$")
    (evt string);
CREATE TABLE Kept (event object, error object);
INSERT INTO Counts SELECT count(), eventTimestamp() as t FROM Clock;
INSERT INTO CountErrors SELECT c, t, convert(_error, 'string') as error FROM !Counts;
INSERT INTO Rows SELECT "Pass" as status, count() as count FROM Clock;
INSERT INTO RowErrors SELECT status, count, convert(_error, 'string') as error FROM !Rows;
INSERT INTO Kept
SELECT map:remove(map:createFromJSON(evt), 'error') as event, json:getObject(evt,'$.error') as error
FROM Errors;
