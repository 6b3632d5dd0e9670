-- expect worker mapping-lists
-- expect source A: stream (?)
-- expect source B: stream (?)
-- expect source C: stream (price double)
-- expect topic c8locals.a: not queried (?)
-- expect topic c8locals.b: not queried (?)
-- expect topic c8locals.c: not queried, nulls and all (price double)
@App:name('mapping-lists') @App:qlVersion('2')
CREATE SOURCE A WITH (type='stream', stream.list='a', map.type='json') (symbol = "$.s.symbol", price = "p");
CREATE SOURCE B WITH (type='stream', stream.list='b', map.type='csv') ("0", "1;2)");
CREATE SOURCE C WITH (type='stream', stream.list='c', map.type='json', attributes.price='$.p',
    fail.on.missing.attribute='false') (price double);
