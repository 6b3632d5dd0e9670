-- expect worker sequences
-- expect stream Rate: stream (symbol string, price float)
-- expect stream On: stream (id long, isOn bool)
-- expect stream Hot: stream (id long, active bool)
-- expect stream Wet: stream (id long, active bool)
-- expect sink Log: log (symbol string, peak float)
-- expect topic c8locals.Rate: read (symbol string, price float)
-- expect topic c8locals.On: read (id long, isOn bool)
-- expect topic c8locals.Hot: read (id long, active bool)
-- expect topic c8locals.Wet: read (id long, active bool)
-- expect query peak: Log from Rate (a pattern)
-- expect query trend: Log from Rate (an indexed event of a pattern)
-- expect query optional: Log from Rate, On (a pattern)
-- expect query logical: States from On, Hot, Wet (a pattern)
-- expect query unnamed: States from On, Hot (a sequence)
@App:name('sequences')
@App:qlVersion('2')
CREATE STREAM Rate (symbol string, price float);
CREATE STREAM On (id long, isOn bool);
CREATE STREAM Hot (id long, active bool);
CREATE STREAM Wet (id long, active bool);
CREATE SINK Log WITH (type='log') (symbol string, peak float);
@info(name='peak')
INSERT INTO Log SELECT e1.symbol, e2.price AS peak
FROM every e1=Rate,
    e2=Rate[e1.price < price],
    e3=Rate[e2.price > price]
    WITHIN 10 min;
@info(name='trend')
INSERT INTO Log SELECT e1.symbol, e2[last].price AS peak
FROM every e1=Rate,
     e2=Rate[ifThenElse(e2[last].price is null, e1.price <= price, e2[last - 1].price <= price)]+,
     e3=Rate[e2[last].price > price];
@info(name='optional')
INSERT INTO Log SELECT e1.symbol, e1.price AS peak
FROM every e1=Rate*, e2=On[isOn == true]?, e3=Rate;
@info(name='logical')
INSERT INTO States SELECT e1.id, e2.active AS hot, e3.active AS wet
FROM every e1=On[isOn == true], e2=Hot and e3=Wet
HAVING hot == true;
@info(name='unnamed')
INSERT INTO States SELECT id FROM On, Hot;
