-- refused 4:74 expected ',' or ')' after an attribute, found ';'
@App:name('refused-open-columns')
@App:qlVersion('2')
CREATE STREAM Rooms WITH (OnError.action='stream') (room int, temp double;
