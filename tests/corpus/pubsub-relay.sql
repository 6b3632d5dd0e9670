-- expect worker pubsub-relay
-- expect source Orders: googlepubsub (message string)
-- expect sink Copies: googlepubsub (message string, length int)
-- expect query: Copies from Orders
@app:name("pubsub-relay")
@app:qlversion("2")
create source Orders with (type='googlepubsub', project.id='shop-4711', topic.id='orders', subscription.id='relay',
    credential.id = 'PUB_SUB', map.type='text') (message String);
create sink Copies with (type='googlepubsub', project.id='shop-4711', topic.id='copies', credential.id='PUB_SUB',
    map.type='text', map.payload="{{message}} has {{length}} letters") (message String, length Int);
insert into Copies select message, str:length(message) as length from Orders;
