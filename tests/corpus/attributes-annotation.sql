-- expect worker attributes-annotation
-- expect source Meters: http (meter int, reading double)
-- expect source Valves: stream (valve string, open bool)
-- expect topic c8locals.valves: not queried (valve string, open bool)
@App:name('attributes-annotation') @App:qlVersion('2')
CREATE SOURCE Meters WITH (type='http', map.type='json', @attributes(meter = '$.no', reading='$.r')) (meter int, reading double);
CREATE SOURCE Valves WITH (@attributes('$.v', '$.o'), type='stream', stream.list='valves', map.type='json',)
    (valve string, open bool);
