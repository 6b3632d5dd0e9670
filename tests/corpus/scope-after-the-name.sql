-- expect worker scope-after-the-name
-- expect source stream Meters: stream (meter long, kwh float)
-- expect table meters_table: local collection meters_table (meter long, kwh float)
-- expect topic c8globals.Meters: read (meter long, kwh float)
-- expect query: meters_table from Meters
@App:name('scope-after-the-name') @App:qlVersion('2')
CREATE SOURCE STREAM Meters GLOBAL WITH (async='true', buffer.size=64) (meter long, kwh float);
create table meters_table local (meter long, kwh float);
insert into meters_table select meter, kwh from Meters
