-- refused 4:1 expected CREATE, INSERT, UPDATE, DELETE or PARTITION, found 'define', which starts a statement of version 1
@App:name('refused-version-1')
@source(type='c8streams', stream.list='raw', @map(type='json'))
define stream Raw (id string);
@sink(type='c8streams', stream='out')
define stream Out (id string);
from Raw#window.length(2) select id insert into Out;
