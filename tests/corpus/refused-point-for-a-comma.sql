-- refused 5:43 expected an operator or ')', found '.'
@App:name('refused-point-for-a-comma')
@App:qlVersion('2')
CREATE STREAM Vans (fence string);
INSERT INTO Inside SELECT geo:touches(10.5. 20.5, fence) AS touched FROM Vans;
