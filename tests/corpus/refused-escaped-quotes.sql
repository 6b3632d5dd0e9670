-- refused 5:40 unexpected character '\\'
@App:name('refused-escaped-quotes')
@App:qlVersion('2')
CREATE STREAM Asked (what string);
INSERT INTO Answers SELECT fx('price', \"{currency: 'EUR'}\") AS answer FROM Asked;
