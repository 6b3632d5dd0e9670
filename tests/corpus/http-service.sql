-- expect worker http-service
-- expect source Asked: http-service (messageId string, left long, right long)
-- expect sink Answered: http-service-response (messageId string, results long)
-- expect query add: Answered from Asked
@App:name('http-service')
@App:qlVersion('2')
CREATE SOURCE Asked WITH (type='http-service', source.id='adder', receiver.url='http://0.0.0.0:9763/add',
    map.type='json', map.attributes.messageId='trp:messageId', map.attributes.left='$.event.left',
    map.attributes.right="$.event['right']") (messageId string, left long, right long);
CREATE SINK Answered WITH (type='http-service-response', source.id='adder', message.id='{{messageId}}',
    headers="'Content-Type:application/json','X-Sum:yes'", map.type = 'json') (messageId string, results long);
@info(name = 'add')
insert into Answered
select messageId, `left` + `right` as results
from Asked;
