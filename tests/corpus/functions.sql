-- expect worker functions
-- expect stream In: stream (a bool, b bool, order string, x double, n long, deadline long)
-- expect table Out: local collection Out (v string)
-- expect topic c8locals.In: read (a bool, b bool, order string, x double, n long, deadline long)
-- expect query and-or: Flags from In
-- expect query signs: Numbers from In
-- expect query nested: Out from In
-- expect query template: Out from In
-- expect query time: Out from In (a time constant)
-- expect query nulls: Out from In
-- expect query list: Out from In (NULL as a value)
@App:name('functions')
@App:qlVersion('2')
CREATE STREAM In (a bool, b bool, order string, x double, n long, deadline long);
CREATE TABLE Out (v string);
@info(name='and-or') INSERT INTO Flags SELECT and(a) AS everyone, OR(b) AS anyone FROM In;
@info(name='signs')
INSERT INTO Numbers SELECT +95 AS i, -750l AS l, +95.789f AS f, -75.0e-10D AS d, 3. AS e, .5 AS h, x - -1 AS g
FROM In[n > +1 AND x < -2.5E3];
@info(name='nested')
INSERT INTO Out
SELECT ifThenElse(json:getString(order, 'name') == "cake",
                  json:toString(
                    json:setElement(order, 'price',
                      json:getDouble(order, 'price') - 5
                    )
                  ),
                  order) AS v
FROM In;
@info(name='template')
INSERT INTO Out SELECT str:fillTemplate("""
    {"order":
        {"id":"{{1}}", "items":{{2}} }
    }""", order, n) AS v
FROM In;
@info(name='time') INSERT INTO Out SELECT time:add(n, 1 hour and 25 minutes) AS v FROM In;
@info(name='nulls')
INSERT INTO Out SELECT math:power(x, 2) is null
            as v
-- spaces before the filter
FROM In [not(order is null)];
@info(name='list') INSERT INTO Out SELECT coalesce(order, null, list:create(1, 'two', 3.0)) AS v FROM In;
