-- refused 4:60 expected
@App:name('refused-lost-quote')
@App:qlVersion('2')
CREATE SINK Mail WITH (type='email', cc='a@b.example, bcc='c@d.example') (email string);
CREATE SINK Note WITH (type='log') (email string);
