-- expect worker purged-partition
-- expect stream Logins: stream (user string, ok bool)
-- expect partition by user
-- expect partition
-- expect sink stream Suspended: stream (user string, message string)
-- expect topic c8locals.Logins: read (user string, ok bool)
-- expect topic c8locals.Suspended: written (user string, message string)
@App:name('purged-partition')
@App:qlVersion('2')
CREATE STREAM Logins ( user string, ok bool);
-- forgets users that weren't seen for an hour
@purge(enable='true', interval='10 sec', idle.period='1 hour')
@info(name='by user')
partitiON with ( user of Logins )

begin
    @info(name='attempts')
-- the last three of each user; END isn't here
    INSERT INTO #Attempts
    SELECT user, ok, count() AS attempts
    FROM Logins window sliding_length(3)
    GROUP BY ok;

    @info(name='suspend')
    INSERT INTO Suspended
    SELECT user, "3 failures in a row; end" AS message
    FROM #Attempts[ok==false and attempts==3];
end;
partition with ( user == 'root' as 'admin' or
    user != 'root' as 'people' of Logins)
begin
    insert into Suspended
    select user, 'end' as message
    from Logins window sliding_time(10 min)
end;
CREATE SINK STREAM Suspended (user string, message string);
