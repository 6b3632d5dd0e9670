-- expect worker javascript
-- expect function normalise: javascript to string
-- expect function level: javascript to int
-- expect stream Raw: stream (text string, value double)
-- expect table Clean: local collection Clean (text string, level int)
-- expect topic c8locals.Raw: read (text string, value double)
-- expect query: Clean from Raw
@App:name('javascript') @App:qlVersion('2')
CREATE FUNCTION normalise[javascript] RETURN string {
    // don't end here: }
    var raw = data[0], unit = 'C';
    if (/^[0-9}]+(\.[0-9]+)?$/.test(raw)) { unit = "F"; }
    var parts = raw.split(/[;,]/g), half = parts.length / 2; /* } */
    return `${parts.map(function (p) { return `<${p}>`; }).join('')}${unit} ${half}`;
};
CREATE FUNCTION level [javascript] return INT { return data[0] > 50 ? 2 : 1; };
CREATE STREAM Raw (text string, value double);
CREATE TABLE Clean (text string, level int);
INSERT INTO Clean SELECT normalise(text) AS text, level(value) AS level FROM Raw;
