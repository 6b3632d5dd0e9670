-- expect worker s3-four-quotes
-- expect stream Visits: stream (name string, age int)
-- expect sink Bucket: s3 (name string, age int)
-- expect topic c8locals.Visits: read (name string, age int)
-- expect query: Bucket from Visits
@App:name('s3-four-quotes')
@App:qlVersion("2")
CREATE STREAM Visits (name string, age int);
CREATE SINK Bucket WITH (type='s3', bucket.name='visits',object.path='by/{{name}}', flush.size='3', map.type='json',
    enclosing.element='$.visit', map.payload=""""{"name": "{{name}}", "age": {{age}}}"""") (name string, age int);
INSERT INTO Bucket SELECT * FROM Visits;
