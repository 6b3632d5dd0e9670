-- refused 6:1 expected ';' at the end of the previous statement, found 'INSERT'
@App:name('refused-lost-semicolon-before-all-events')
@App:qlVersion('2')
CREATE STREAM Seen (id string);
CREATE WINDOW Held (id string) SLIDING_LENGTH(2) OUTPUT ALL EVENTS
INSERT EXPIRED EVENTS INTO Gone SELECT id FROM Held;
