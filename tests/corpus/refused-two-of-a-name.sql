-- refused 5:14 found 'In', which is already defined on line 4
@App:name('refused-two-of-a-name')
@App:qlVersion('2')
CREATE STREAM In (id string);
CREATE TABLE In (id string);
