-- refused 5:46 expected an expression, found a block in braces
@App:name('refused-json-without-quotes')
@App:qlVersion('2')
CREATE STREAM Vans (x double, y double);
INSERT INTO Inside SELECT geo:contains(x, y, {'type': 'Polygon', 'coordinates': [[[0, 0], [0, 9], [9, 0]]]}) AS near
FROM Vans;
