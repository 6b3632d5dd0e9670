-- refused 1:1 expected @App:name
@App:qlVersion('2')
CREATE STREAM In (id string);
