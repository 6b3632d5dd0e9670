-- refused 5:14 found 'In', which line 4 defines already
@App:name('refused-two-of-a-name')
@App:qlVersion('2')
CREATE STREAM In (id string);
CREATE TABLE In (id string);
