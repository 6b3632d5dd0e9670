-- refused 5:1 expected INSERT INTO, UPDATE or DELETE in the query, found none
@App:name('refused-select-alone')
@App:qlVersion('2')
CREATE TABLE Rooms (room int, type string);
select room, type from Rooms on room >= 10;
