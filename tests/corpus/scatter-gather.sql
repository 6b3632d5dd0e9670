-- expect worker scatter-gather
-- expect stream Orders: stream (user string, items string)
-- expect topic c8locals.Orders: read (user string, items string)
-- expect query Scatter: Items from Orders (a stream function)
-- expect query Transform: Keys from Items
-- expect query Gather: Grouped from Keys (WINDOW)
-- expect query Logged: Kept from Grouped (a stream function)
@App:name('scatter-gather')
@App:qlVersion('2')
CREATE STREAM Orders (user string, items string);
@info(name = 'Scatter')
-- one event for each
INSERT INTO Items
SELECT user, token AS item
FROM Orders#str:tokenize(items, ',', true);
@info(name = 'Transform') INSERT INTO Keys SELECT user, str:concat(user, "-", item) AS itemKey FROM Items;
@info(name = 'Gather') INSERT INTO Grouped SELECT user, str:groupConcat(itemKey, ",") AS itemKeys FROM Keys window batch();
@info(name = 'Logged') INSERT INTO Kept SELECT * FROM Grouped[user != 'x']#log('INFO', "kept; it's")#window.length(1);
