-- refused 4:21 expected WITH (type = '…', …) after CREATE SOURCE Orders
@App:name('refused-lost-with')
@App:qlVersion('2')
CREATE SOURCE Orders(type='cdc', url='jdbc:mysql://db.example:3306/shop', table.name='orders') (id int, item string);
