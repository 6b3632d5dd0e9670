-- refused 4:23 expected '('
@App:name('refused-lost-parenthesis')
@App:qlVersion('2')
CREATE SINK Mail WITH type='email', to='{{email}}') (email string);
