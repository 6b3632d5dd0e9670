"""Whole workers such as people write them, and what is in each."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

import pytest

from bridge.streamql import (
    FunctionDefinition,
    OtherDefinition,
    OtherQuery,
    StreamDefinition,
    TableDefinition,
    input_streams,
    parse,
)


@dataclass(frozen=True)
class Example:
    """``definitions`` are ``kind name``; ``queries`` are ``target<source`` or the construct of what isn't simple."""

    name: str
    text: str
    definitions: str
    queries: str = ""
    inputs: str = ""


EXAMPLES = [
    Example(
        name="mqtt-source",
        text="""
            @App:name("mqtt-source")
            @App:description('Reads a broker itself, "without" a bridge; really')
            @App:qlVersion("2")
            CREATE SOURCE Readings WITH (type='mqtt', url='tcp://broker.example:1883', topic='plant/+/temp',
                quality.of.service='1', clean.session='false', keep.alive=60, map.type='json')
                (device string, value double);
            CREATE TABLE GLOBAL ReadingsTable (device string, value double);
            INSERT INTO ReadingsTable SELECT device, value FROM Readings[value > -40.0 and value < 125];
        """,
        definitions="source Readings, table ReadingsTable",
        queries="ReadingsTable<Readings",
    ),
    Example(
        name="shortcuts",
        text="""
            @App:name('shortcuts') @App:qlVersion('2')
            CREATE STREAM GLOBAL In (id string, at long);
            CREATE SINK STREAM GLOBAL Out(id string, at long);
            CREATE SINK STREAM Echo (id string, at long);
            INSERT INTO Out FROM In;
            INSERT INTO Echo SELECT * FROM In;
        """,
        definitions="stream In, sink stream Out, sink stream Echo",
        queries="Out<In, Echo<In",
        inputs="In! Out!- Echo-",
    ),
    Example(
        name="scope-after-the-name",
        text="""
            @App:name('scope-after-the-name') @App:qlVersion('2')
            CREATE SOURCE STREAM Meters GLOBAL WITH (async='true', buffer.size=64) (meter long, kwh float);
            create table meters_table local (meter long, kwh float);
            insert into meters_table select meter, kwh from Meters
        """,
        definitions="source stream Meters, table meters_table",
        queries="meters_table<Meters",
        inputs="Meters!",
    ),
    Example(
        name="triple-quotes",
        text='''
            @App:name("triple-quotes")
            @App:description("""Sends "alerts" to the operator's desk;
            -- not a comment, not /* either */ and no end;""")
            @App:qlVersion("2")
            CREATE STREAM Alerts (device string, level int, `order` int);
            CREATE SINK Desk WITH (type='http', publisher.url="https://desk.example/alerts", method='POST',
                headers="'Authorization: Bearer x','X-Plant: 1'", map.type='json',
                map.payload="""{"text": "{{device}} is at {{level}}; it's high", "raw": {"a": [1, 2]}}""")
                (device string, level int);
            INSERT INTO Desk SELECT device, level FROM Alerts[level >= 3];
        ''',
        definitions="stream Alerts, sink Desk",
        queries="Desk<Alerts",
        inputs="Alerts",
    ),
    Example(
        name="commented-out",
        text="""
            @App:name('commented-out')
            @App:qlVersion('2')
            -- @App:instances('4')
            /*
              CREATE STREAM Old (a int);  -- was
              INSERT INTO t SELECT a FROM Old;
            */
            -------------------------------------------------
            CREATE STREAM New (a int); // CREATE STREAM Newer (a int);
            /** CREATE TABLE t (a int); **/
            CREATE TABLE t (a int, -- b int,
                            c int /* , d int */);
            @info(name='copy') -- the only one
            -- INSERT INTO t SELECT b FROM New;
            INSERT INTO t
            SELECT a, /* b, */ a * 2 AS c -- , d
            FROM New;
        """,
        definitions="stream New, table t",
        queries="t<New",
        inputs="New",
    ),
    Example(
        name="stream-list",
        text="""
            @App:name('stream-list') @App:qlVersion("2")
            CREATE SOURCE Plants WITH (type='stream', stream.list='north, south', replication.type='global',
                subscription.type='Shared', subscription.initial.position='Earliest', map.type='json')
                (plant string, load double);
            CREATE SINK Total WITH(type='stream',stream='total',replication.type='LOCAL',map.type='json')(load double);
            INSERT INTO Total SELECT sum(load) AS load FROM Plants WINDOW TUMBLING_TIME(1 min);
        """,
        definitions="source Plants, sink Total",
        queries="WINDOW",
        inputs="north! south! total-",
    ),
    Example(
        name="javascript",
        text="""
            @App:name('javascript') @App:qlVersion('2')
            CREATE FUNCTION normalise[javascript] RETURN string {
                // don't end here: }
                var raw = data[0], unit = 'C';
                if (/^[0-9}]+(\\.[0-9]+)?$/.test(raw)) { unit = "F"; }
                var parts = raw.split(/[;,]/g), half = parts.length / 2; /* } */
                return `${parts.map(function (p) { return `<${p}>`; }).join('')}${unit} ${half}`;
            };
            CREATE FUNCTION level [javascript] return INT { return data[0] > 50 ? 2 : 1; };
            CREATE STREAM Raw (text string, value double);
            CREATE TABLE Clean (text string, level int);
            INSERT INTO Clean SELECT normalise(text) AS text, level(value) AS level FROM Raw;
        """,
        definitions="function normalise, function level, stream Raw, table Clean",
        queries="Clean<Raw",
        inputs="Raw",
    ),
    Example(
        name="partition",
        text="""
            @App:name('partition') @App:qlVersion('2')
            CREATE STREAM Rooms (room int, temp double, start long, end long);
            CREATE SINK STREAM Averages (room int, temp double);
            @purge(enable='true', interval='10 sec', @idle(period='1 hour'))
            PARTITION WITH (room OF Rooms)
            BEGIN
                @info(name='inner')
                INSERT INTO #spread SELECT room, temp, end - start AS end FROM Rooms GROUP BY end;
                INSERT INTO Averages SELECT room, avg(temp) AS temp FROM #spread WINDOW SLIDING_TIME(5 min);
            END;
            INSERT INTO Averages SELECT room, temp FROM Rooms[end is null];
        """,
        definitions="stream Rooms, sink stream Averages, partition -",
        queries="Averages<Rooms",
        inputs="Rooms Averages-",
    ),
    Example(
        name="range-partition",
        text="""
            @App:name('range-partition') @App:qlVersion('2')
            CREATE STREAM Rooms (room int, temp double);
            CREATE TABLE T (room int, temp double);
            PARTITION WITH (room >= 1000 AS 'server' OR room < 330 AS 'office' OF Rooms)
            BEGIN
                INSERT INTO T SELECT * FROM Rooms
            END
        """,
        definitions="stream Rooms, table T, partition -",
        inputs="Rooms",
    ),
    Example(
        name="table-as-source",
        text="""
            @App:name('table-as-source') @App:qlVersion('2')
            CREATE TABLE Orders (_key string, amount double, customer string);
            CREATE SOURCE OrderChanges WITH (type='database', collection='Orders', collection.type='doc',
                replication.type='global', map.type='json') (_key string, amount double);
            CREATE SINK STREAM Big (amount double);
            INSERT INTO Big SELECT amount FROM OrderChanges[amount > 1000];
            INSERT INTO Big SELECT o.amount FROM Orders AS o JOIN OrderChanges AS c ON o._key == c._key;
        """,
        definitions="table Orders, source OrderChanges, sink stream Big",
        queries="Big<OrderChanges, an alias",
        inputs="Big-",
    ),
    Example(
        name="stores",
        text="""
            @App:name('stores') @App:qlVersion('2')
            CREATE STORE Doc WITH (type='database', collection="DocCollection", replication.type='local') (a int);
            CREATE STORE Kv WITH (type = 'database', collection.type="kv", kv.expiration='true')
                (_key string, value object, expireAt long);
            CREATE STORE Sql WITH (type='rdbms', jdbc.url='jdbc:postgresql://db.example:5432/x', username='u',
                password='p', PrimaryKey='id', primarykey='at') (id int, at long);
            CREATE UNIQUE INDEX byA ON TABLE Doc WITH (type='persistent', sparse='true') (a);
            CREATE SECONDARY INDEX byKey ON STORE Kv WITH (type='global') (expireAt);
            CREATE INDEX byA ON TABLE Sql WITH (type='hash') (id);
        """,
        definitions="store Doc, store Kv, store Sql, index byA, index byKey, index byA",
    ),
    Example(
        name="triggers",
        text="""
            @App:name('triggers') @App:qlVersion('2')
            CREATE TRIGGER Tick WITH ( interval = 5 sec );
            CREATE TRIGGER Noon WITH (expression='0 0 12 * * ?');
            CREATE TRIGGER Boot WITH (expression = 'start');
            CREATE SINK Log WITH (type='log', prefix='TICK', priority=INFO) (triggered_time long);
            INSERT INTO Log SELECT triggered_time FROM Tick;
            INSERT INTO Log SELECT time:timestampInMilliseconds() / 1000 AS triggered_time FROM Noon;
        """,
        definitions="trigger Tick, trigger Noon, trigger Boot, sink Log",
        queries="Log<Tick, Log<Noon",
    ),
    Example(
        name="aggregations",
        text="""
            @App:name('aggregations') @App:qlVersion('2')
            CREATE STREAM Sales (brand string, price double, timestamp long);
            CREATE AGGREGATION SalesByTime WITH(store.type='database', store.replication.type='global')
                SELECT brand, avg(price) AS price, count() AS count FROM Sales
                GROUP BY brand AGGREGATE BY timestamp EVERY sec...year;
            CREATE AGGREGATION Coarse SELECT sum(price) AS price FROM Sales AGGREGATE EVERY min, hour, day;
            CREATE STREAM Ask (brand string);
            INSERT INTO Answer SELECT a.brand, a.price FROM Ask AS b JOIN SalesByTime AS a ON a.brand == b.brand
                WITHIN "2026-01-01 00:00:00 +00:00", "2026-02-01 00:00:00 +00:00" PER "days";
        """,
        definitions="stream Sales, aggregation SalesByTime, aggregation Coarse, stream Ask",
        queries="an alias",
        inputs="Sales Ask",
    ),
    Example(
        name="windows",
        text="""
            @App:name('windows') @App:qlVersion('2')
            CREATE STREAM In (id int, temp double);
            CREATE WINDOW Last (id int, temp double) SLIDING_TIME(1 min) OUTPUT ALL EVENTS;
            INSERT INTO Last FROM In;
            INSERT INTO Hot SELECT id, max(temp) AS temp FROM Last GROUP BY id HAVING temp > 40;
            INSERT EXPIRED EVENTS INTO Old SELECT id FROM Last;
            INSERT INTO Few SELECT id FROM In WINDOW TUMBLING_LENGTH(10) ORDER BY id DESC LIMIT 3 OFFSET 1;
        """,
        definitions="stream In, window Last",
        queries="Last<In, GROUP BY, INSERT EXPIRED EVENTS, WINDOW",
        inputs="In",
    ),
    Example(
        name="patterns",
        text="""
            @App:name('patterns') @App:qlVersion('2')
            CREATE STREAM Door (id int, open bool);
            CREATE STREAM Heat (id int, temp double);
            INSERT INTO Waste SELECT e1.id, e2[last].temp AS temp
            FROM every e1=Door[open == true] -> e2=Heat[temp > e1.id]<2:> WITHIN 10 min;
            INSERT INTO Peak SELECT e2.temp AS temp FROM every e1=Heat, e2=Heat[e1.temp <= temp]+, e3=Heat;
            INSERT INTO Forgotten SELECT e1.id FROM e1=Door[open] -> not Door[not open] for 5 min;
            INSERT INTO Both SELECT e2.temp AS temp FROM every (e1=Door and e2=Heat);
        """,
        definitions="stream Door, stream Heat",
        queries="an event of a pattern by its index, a pattern, a pattern, a pattern",
        inputs="Door Heat",
    ),
    Example(
        name="table-actions",
        text="""
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
        """,
        definitions="stream Set, stream Gone, table State",
        queries="UPDATE OR INSERT, UPDATE, DELETE, IN",
        inputs="Set Gone",
    ),
    Example(
        name="errors",
        text="""
            @App:name('errors') @App:qlVersion('2')
            CREATE STREAM In WITH (OnError.action='stream') (a int);
            @OnError(action='log')
            CREATE STREAM Side (a int);
            CREATE SINK Log WITH (type='log') (a int, _error object);
            INSERT INTO Log SELECT a, _error FROM !In;
            INSERT INTO Side SELECT a FROM In[NOT (a is null) AND a % 2 == 0];
        """,
        definitions="stream In, stream Side, sink Log",
        queries="a fault stream, Side<In",
        inputs="In Side",
    ),
    Example(
        name="query-workers",
        text="""
            @App:name('query-workers') @App:qlVersion('2')
            CREATE STREAM In (name string, age int);
            CREATE QUERY-WORKER adults WITH (query='FOR p IN People FILTER p.age > @age; RETURN p') (age int);
            CREATE QUERY-WORKER byName WITH (query.worker.name='named') (name string) AS SELECT name FROM In;
            CREATE SINK Ask WITH (type='query-worker', query="INSERT {n: @name} INTO People", sink.id='q1')
                (name string);
            CREATE SOURCE Told WITH (type='query-worker', `sink.id`='q1', map.type='json') (name string);
            INSERT INTO Ask SELECT name FROM In;
        """,
        definitions="stream In, query-worker adults, query-worker byName, sink Ask, source Told",
        queries="Ask<In",
        inputs="In",
    ),
    Example(
        name="create-as-select",
        text="""
            @App:name('create-as-select') @App:qlVersion('2')
            CREATE STREAM In (symbol string, price float);
            @info(name='dear') CREATE TABLE Dear (symbol string, price float) WITH (batch.size='10')
                AS SELECT symbol, price FROM In[price > 500] WINDOW SLIDING_LENGTH(1);
            CREATE STREAM Cheap AS SELECT symbol FROM In[price < 1];
        """,
        definitions="stream In, table Dear, stream Cheap",
        queries="CREATE TABLE … AS SELECT, CREATE STREAM … AS SELECT",
        inputs="In Cheap?",
    ),
    Example(
        name="mapping-lists",
        text="""
            @App:name('mapping-lists') @App:qlVersion('2')
            CREATE SOURCE A WITH (type='stream', stream.list='a', map.type='json') (symbol = "$.s.symbol", price = "p");
            CREATE SOURCE B WITH (type='stream', stream.list='b', map.type='csv') ("0", "1;2)");
            CREATE SOURCE C WITH (type='stream', stream.list='c', map.type='json', attributes.price='$.p',
                fail.on.missing.attribute='false') (price double);
        """,
        definitions="source A, source B, source C",
        inputs="a? b? c",
    ),
    Example(
        name="keyword-names",
        text="""
            @App:name('keyword-names') @App:qlVersion('2')
            CREATE STREAM Events (value double, type string, time long, count int, key string, user string, order int,
                event string, timestamp long, last double, close double, exchange string, `select` string);
            CREATE TABLE `Events Table` (value double, key string);
            INSERT INTO `Events Table` SELECT value, str:concat(key, '-', user) AS key
            FROM Events[type == 'a' and order > 0 and Events.last <= close * 2 or not (event is null)];
        """,
        definitions="stream Events, table Events Table",
        queries="Events Table<Events",
        inputs="Events",
    ),
    Example(
        name="odd-annotations",
        text="""
            @app:name("odd-annotations")
            @app:playback(idle.time = '100 millisec', increment = 2 sec)
            @App:instances('3')
            @App:qlVersion(2)
            @Async(buffer.size=1024, workers=2, batch.size.max=10)
            CREATE STREAM In (a int);
            @infor(name = "first") INSERT INTO One SELECT a FROM In;
            @info('second') INSERT INTO Two SELECT a FROM In;
            @name('third') INSERT INTO Three SELECT a FROM In;
            @dist(execGroup="g", @nested(x='y', @deeper), parallel='2') @INFO(name='fourth')
            INSERT INTO Four SELECT a FROM In;
        """,
        definitions="stream In",
        queries="One<In, Two<In, Three<In, Four<In",
        inputs="In",
    ),
    Example(
        name="chained",
        text="""
            @App:name('chained')
            @App:qlVersion('2')
            INSERT INTO Fahrenheit FROM Celsius[temp > -273.15][not (temp is null)]
                SELECT id, temp * 9 / 5 + 32 AS temp;
            CREATE STREAM Celsius (id string, temp double);
            INSERT INTO Hot SELECT id, ifThenElse(temp >= 100.0, 'boiling', "hot") AS state,
                5L AS five, 1.5f AS f, true AS ok
            FROM Fahrenheit[(temp > 86 and temp < 1e6) or id == "it's"];
        """,
        definitions="stream Celsius",
        queries="Fahrenheit<Celsius, Hot<Fahrenheit",
        inputs="Celsius",
    ),
    Example(
        name="stream-functions",
        text="""
            @App:name('stream-functions') @App:qlVersion('2')
            CREATE STREAM Lines (text string);
            INSERT INTO Words SELECT token FROM Lines#str:tokenize(text, ',');
            INSERT INTO Batches SELECT text FROM Lines#window.lengthBatch(5);
            INSERT INTO Counted SELECT count() FROM Lines;
            INSERT INTO Slow SELECT text FROM Lines OUTPUT LAST EVERY 5 sec;
        """,
        definitions="stream Lines",
        queries="a stream function, WINDOW, an expression without AS, OUTPUT",
        inputs="Lines",
    ),
    Example(
        name="http-in-and-out",
        text="""
            @App:name('http-in-and-out') @App:qlVersion('2')
            CREATE SOURCE Posted WITH (type="http", map.type='json', map.enclosing.element='$.event') (a int);
            CREATE SINK Calls WITH (type='http-call', publisher.url=https://api.example/v1/x, method=GET,
                sink.id='c', map.type='json') (a int);
            CREATE SOURCE Replies WITH (type='http-call-response', sink.id='c', http.status.code='200') (a int);;
            INSERT INTO Calls SELECT a FROM Posted;
            INSERT INTO Kept SELECT a FROM Replies WHERE a > 1;
        """,
        definitions="source Posted, sink Calls, source Replies",
        queries="Calls<Posted, WHERE",
    ),
    Example(
        name="windows-line-ends",
        text="@App:name('windows-line-ends')\r\n@App:qlVersion('2')\r\n\r\nCREATE STREAM In (a int);\r\n"
        "-- a comment\r\nCREATE FUNCTION f[javascript] RETURN int {\r\n  // it's\r\n  return 1;\r\n};\r\n"
        "INSERT INTO T\r\nSELECT f(a) AS a\r\nFROM In;\r\n",
        definitions="stream In, function f",
        queries="T<In",
        inputs="In",
    ),
]


def described(definition: object) -> str:
    match definition:
        case StreamDefinition(kind=kind, name=name) | TableDefinition(kind=kind, name=name):
            return f"{kind} {name}"
        case FunctionDefinition(name=name):
            return f"function {name}"
        case OtherDefinition(construct=construct, name=name):
            return f"{construct} {name or '-'}"
    raise AssertionError(definition)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_a_worker_as_people_write_them_is_read(example: Example) -> None:
    text = dedent(example.text)
    worker = parse(text)
    queries = [q.construct if isinstance(q, OtherQuery) else f"{q.target}<{q.source}" for q in worker.queries]
    inputs = [
        s.name
        + ("!" if s.scope.value == "global" else "")
        + ("" if s.read_by_worker else "-")
        + ("?" if s.attributes is None else "")
        for s in input_streams(worker).values()
    ]

    assert worker.name == example.name
    assert worker.text == text
    assert ", ".join(described(d) for d in worker.definitions) == example.definitions
    assert ", ".join(queries) == example.queries
    assert " ".join(inputs) == example.inputs
