-- refused 5:24 expected SELECT or FROM after the target, found ';'
@App:name('refused-semicolon-after-the-target')
@App:qlVersion('2')
CREATE STREAM Late (train string, driver string);
INSERT INTO LateDrivers;
SELECT train, driver FROM Late WINDOW SLIDING_LENGTH(1);
