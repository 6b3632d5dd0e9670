-- refused 5:1 expected SELECT or FROM after the target, found 'fx'
@App:name('refused-lost-select')
@App:qlVersion('2')
CREATE SINK STREAM Answers (result object); CREATE TRIGGER Tick WITH (interval = 5 sec); INSERT INTO Answers
fx('mine', 'key', 'value') as result FROM Tick;
