-- expect worker http-in-and-out
-- expect source Posted: http (a int)
-- expect sink Calls: http-call (a int)
-- expect source Replies: http-call-response (a int)
-- expect query: Calls from Posted
-- expect query: Kept from Replies (WHERE)
@App:name('http-in-and-out') @App:qlVersion('2')
CREATE SOURCE Posted WITH (type="http", map.type='json', map.enclosing.element='$.event') (a int);
CREATE SINK Calls WITH (type='http-call', publisher.url=https://api.example/v1/x, method=GET,
    sink.id='c', map.type='json') (a int);
CREATE SOURCE Replies WITH (type='http-call-response', sink.id='c', http.status.code='200') (a int);;
INSERT INTO Calls SELECT a FROM Posted;
INSERT INTO Kept SELECT a FROM Replies WHERE a > 1;
