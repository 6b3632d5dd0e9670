-- refused 4:1 unexpected character '–'; a comment starts with two hyphens: --
@App:name('refused-dash-for-hyphens')
@App:qlVersion('2')
– what beats
CREATE TRIGGER Beat WITH (interval = 1 sec);
