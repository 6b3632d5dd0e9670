-- expect worker javascript-hard
-- expect function braces: javascript to string
-- expect function regexes: JavaScript to bool
-- expect function templates: javascript to object
-- expect function empty: javascript to long
-- expect function last: javascript to double
-- expect stream S: stream (a string)
-- expect topic c8locals.S: read (a string)
-- expect query: T from S
@App:name('javascript-hard')
@App:qlVersion('2')
CREATE FUNCTION braces[javascript] return string {
    // a } that doesn't count, and "quotes" that don't
    /* nor { these '; */
    var one = "}", two = '\'}', three = "\"{";
    var o = {a: {b: {c: "}}}"}}}; if (one) { two = o['a']; } else { three = {}; }
    for (var i = 0; i < 3; i++) { while (false) { } }
    return one + two + three;
};
CREATE FUNCTION regexes [JavaScript] RETURN bool {
    var x = 4 / 2 / 1, y = (x) / 2, z = [1][0] / 3;
    if (/[/}{]\/}/.test(data[0])) return /'/.test("it's");
    return !/"/g.exec(data[0]) || x++ / 2 > 1 / y;
};
create function templates[javascript]
return object
{
    return `${[1, 2].map(function (n) { return `{${n}}`; }).join("}")} \` } ${ {a: '}'}.a } $ { }`;
}
;
CREATE FUNCTION empty[javascript] RETURN LONG {};
CREATE FUNCTION last[javascript] RETURN double { return parseFloat(data[0]) * 1.5; }; CREATE STREAM S (a string);
INSERT INTO T SELECT braces(a) AS b, regexes(a) AS c, last(a) AS d FROM S;
