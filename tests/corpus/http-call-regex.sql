-- expect worker http-call-regex
-- expect sink Fetch: http-call (name string, id int)
-- expect source Found: http-call-response (name string, file string)
-- expect source Missing: http-call-response (message string)
-- expect stream Wanted: stream (name string, id int)
-- expect topic c8locals.Wanted: read (name string, id int)
-- expect query: Fetch from Wanted
@App:name('http-call-regex')
@App:qlVersion('2')
CREATE SINK Fetch WITH (type='http-call', publisher.url='http://files.example/{{name}}', method='GET',
    sink.id='fetch', blocking.io='true', map.type='json', map.payload="'{{name}}'") (name String, id int);
CREATE SOURCE Found WITH (type='http-call-response', sink.id='fetch', http.status.code='2\\d+', map.type='text',
    map.regex.A='((.|\n)*)', map.attributes="name='trp:name', file='A[1]'") (name string, file string);
CREATE SOURCE Missing WITH (type='http-call-response', sink.id='fetch', http.status.code='4\d\d', map.type='text',
    map.regex.A="((.|\n)*)\\", map.attributes.message='A[1]') (message string);
CREATE STREAM Wanted(name string, id int);
INSERT INTO Fetch SELECT name, id FROM Wanted[regex:matches('[a-z]+\.(png|jpg)', name)];
