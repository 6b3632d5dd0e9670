-- expect worker chained
-- expect stream Celsius: stream (id string, temp double)
-- expect topic c8locals.Celsius: read (id string, temp double)
-- expect query: Fahrenheit from Celsius
-- expect query: Hot from Fahrenheit
@App:name('chained')
@App:qlVersion('2')
INSERT INTO Fahrenheit FROM Celsius[temp > -273.15][not (temp is null)]
    SELECT id, temp * 9 / 5 + 32 AS temp;
CREATE STREAM Celsius (id string, temp double);
INSERT INTO Hot SELECT id, ifThenElse(temp >= 100.0, 'boiling', "hot") AS state,
    5L AS five, 1.5f AS f, true AS ok
FROM Fahrenheit[(temp > 86 and temp < 1e6) or id == "it's"];
