-- expect worker case-variants
-- expect source stream In: stream (a string, b int, c long, d float, e double, f bool, g object)
-- expect sink stream Out: stream (a string)
-- expect table T: global collection T (a string)
-- expect store U: local collection u_rows (a string)
-- expect topic c8globals.In: read (a string, b int, c long, d float, e double, f bool, g object)
-- expect topic c8locals.Out: written (a string)
-- expect query Q: Out from In
-- expect query: T from In (UPDATE OR INSERT)
-- expect query: T from In (GROUP BY)
@APP:NAME('case-variants')
@aPP:QLVERSION('2')
Create Source Stream Global In (a STRING, b INT, c LONG, d FLOAT, e DOUBLE, f BOOL, g OBJECT);
CREATE sink Stream Local Out (a String);
cReAtE tAbLe SpOt T (a String);
CREATE STORE U WITH (TYPE='database', Collection='u_rows', Replication.Type='LOCAL') (a String);
@INFO(NAME='Q')
Insert Into Out Select a From In[Not (a Is Null) And b == 5 Or f == TRUE];
Update Or Insert Into T Set T.a = a On T.a == a Select a From In;
iNsErT iNtO T sElEcT a fRoM In gRoUp bY a;
