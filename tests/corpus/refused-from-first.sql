-- refused 5:1 found 'from', which starts a statement of version 1
@App:name('refused-from-first')
@App:qlVersion('2')
CREATE STREAM Sums (id string, a long, b long);
from Sums select id, a + b as sum insert into Results;
