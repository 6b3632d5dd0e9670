-- expect worker query-workers
-- expect stream In: stream (name string, age int)
-- expect query-worker adults
-- expect query-worker byName
-- expect sink Ask: query-worker (name string)
-- expect source Told: query-worker (name string)
-- expect topic c8locals.In: read (name string, age int)
-- expect query: Ask from In
@App:name('query-workers') @App:qlVersion('2')
CREATE STREAM In (name string, age int);
CREATE QUERY-WORKER adults WITH (query='FOR p IN People FILTER p.age > @age; RETURN p') (age int);
CREATE QUERY-WORKER byName WITH (query.worker.name='named') (name string) AS SELECT name FROM In;
CREATE SINK Ask WITH (type='query-worker', query="INSERT {n: @name} INTO People", sink.id='q1')
    (name string);
CREATE SOURCE Told WITH (type='query-worker', `sink.id`='q1', map.type='json') (name string);
INSERT INTO Ask SELECT name FROM In;
