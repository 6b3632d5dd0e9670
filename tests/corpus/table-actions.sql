-- expect worker table-actions
-- expect stream Set: stream (id string, value double)
-- expect stream Gone: stream (id string)
-- expect table State: local collection State (id string, value double)
-- expect topic c8locals.Set: read (id string, value double)
-- expect topic c8locals.Gone: read (id string)
-- expect query upsert: State from Set (UPDATE OR INSERT)
-- expect query set: State from Gone (UPDATE)
-- expect query drop: State from Gone (DELETE)
-- expect query known: Known from Set (IN)
@App:name('table-actions') @App:qlVersion('2')
CREATE STREAM Set (id string, value double);
CREATE STREAM Gone (id string);
CREATE TABLE State (id string, value double);
@info(name='upsert') UPDATE OR INSERT INTO State SET State.value = value ON State.id == id
    SELECT id, value FROM Set;
@info(name='set') UPDATE State SET State.value = 0.0 ON State.id == id SELECT id FROM Gone;
@info(name='drop') DELETE State FOR EXPIRED EVENTS
    ON State.id == id SELECT id FROM Gone WINDOW SLIDING_TIME(1 day);
@info(name='known') INSERT INTO Known SELECT id FROM Set[State.id == id in State];
