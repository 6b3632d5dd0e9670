-- refused 4:38 expected ',' or ')' after an attribute, found '>'
@App:name('refused-stray-angle-bracket')
@App:qlVersion('2')
CREATE SINK STREAM Baskets (id object>);
