-- refused 4:64 expected ',' or ')' after a property, found 'json'
@App:name('refused-backtick-for-a-quote')
@App:qlVersion('2')
CREATE SINK Calls WITH (type='grpc-call`, sink.id=1, map.type='json', publisher.url='grpc://c.example:80/x') (m string);
