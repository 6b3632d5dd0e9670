-- expect worker many-brokers
-- expect source FromRabbit: rabbitmq (id string)
-- expect source FromNats: nats (id string)
-- expect source FromTcp: tcp (id string)
-- expect source FromGrpc: grpc (id string)
-- expect source FromSocket: websocket (id string)
-- expect source FromMail: email (id string)
-- expect source FromScrape: prometheus (id string, value double)
-- expect source FromEvents: sse (id string)
-- expect source FromHere: inmemory (id string)
-- expect sink ToRabbit: rabbitmq (id string)
-- expect sink ToNats: nats (id string)
-- expect sink ToTcp: tcp (id string)
-- expect sink ToGrpc: grpc-call (id string)
-- expect sink ToSocket: websocket-server (id string)
-- expect sink ToMail: email (id string)
-- expect sink ToScrape: prometheus (id string, value double)
-- expect sink ToJms: jms (id string)
-- expect sink ToHere: inmemory (id string)
-- expect sink ToMqtt: mqtt (id string)
-- expect query: ToRabbit from FromNats
-- expect query: ToScrape from FromScrape
@App:name('many-brokers') @App:qlVersion('2')
CREATE SOURCE FromRabbit WITH (type='rabbitmq', uri='amqp://guest:guest@rabbit.example:5672', exchange.name='in',
    exchange.type='direct', routing.key='a.b', tls.enabled='false', map.type='json') (id string);
CREATE SOURCE FromNats WITH (type='nats', destination='in', bootstrap.servers='nats://nats.example:4222',
    client.id='c1', cluster.id='c', queue.group.name='g', durable.name='d', subscription.sequence='10',
    map.type='text') (id string);
CREATE SOURCE FromTcp WITH (type='tcp', context='/in', map.type='binary') (id string);
CREATE SOURCE FromGrpc WITH (type='grpc', receiver.url='grpc://0.0.0.0:8888/a.B/c', map.type='json') (id string);
CREATE SOURCE FromSocket WITH (type='websocket', url='wss://ws.example/in?x=1&y=2', sub.protocol='chat, super',
    headers="'a:b','c:d'", idle.timeout='-1', map.type='text') (id string);
CREATE SOURCE FromMail WITH (type='email', username='box', password='hunter2; --x', store='imap',
    search.term="from:a@b.example, to:c@d.example, subject:(not this)", polling.interval='600', map.type='json')
    (id string);
CREATE SOURCE FromScrape WITH (type='prometheus', target.url='http://exporter.example:9100/metrics',
    scrape.interval='5', metric.type='gauge', metric.name='load_{1}', map.type='keyvalue') (id string, value double);
CREATE SOURCE FromEvents WITH (type='sse', receiver.url='http://events.example/in', worker.count=1, map.type="json")
    (id string);
CREATE SOURCE FromHere WITH (type='inMemory', topic='here', map.type='passThrough') (id string);

CREATE SINK ToRabbit WITH (type='rabbitmq', uri='amqp://guest:guest@rabbit.example:5672', exchange.name='out',
    routing.key='{{id}}', headers='{{id}}', map.type='json') (id string);
CREATE SINK ToNats WITH (type='nats', destination='out', bootstrap.servers='nats://nats.example:4222',
    map.type='text', map.payload="""{{id}}""") (id string);
CREATE SINK ToTcp WITH (type='tcp', url='tcp://tcp.example:9892/out', sync='false', map.type='binary') (id string);
CREATE SINK ToGrpc WITH (type='grpc-call', publisher.url='grpc://grpc.example:8888/a.B/c', sink.id='1',
    metadata="'who:{{id}}'", map.type='json') (id string);
CREATE SINK ToSocket WITH (type='websocket-server', host='0.0.0.0', port='8025', map.type='text') (id string);
CREATE SINK ToMail WITH (type='email', map.type ='json', username='box', address='box@mail.example',password='p',
    subject='About {{id}}',to='a@mail.example, b@mail.example', content.type='text/html') (id string);
CREATE SINK ToScrape WITH (type='prometheus',job='plant', server.url ='http://exporter.example:9080',
    publish.mode='server', metric.type='histogram', buckets="2,4,6,8", metric.help= "How it's", map.type='keyvalue')
    (id string, value double);
CREATE SINK ToJms WITH (type='jms', factory.initial='a.b.C', provider.url='vm://localhost', destination='out',
    connection.factory.jndi.name='Q', map.type='json') (id string);
CREATE SINK ToHere WITH (type='inMemory', topic='{{id}}', map.type='passThrough') (id string);
CREATE SINK ToMqtt WITH (type='mqtt', url='tcp://mqtt.example:1883', topic='out/{{id}}', message.retain='false',
    quality.of.service=1, clean.session='true', map.type='json') (id string);

INSERT INTO ToRabbit SELECT id FROM FromNats;
INSERT INTO ToScrape FROM FromScrape;
