-- expect worker indexes
-- expect table Sensors: local collection Sensors (id string, at long, place object)
-- expect index ById
-- expect index Sensors2
-- expect index Words
-- expect index Places
-- expect index Old
-- expect index Old
@App:name('indexes')
@App:qlVersion('2')
CREATE TABLE Sensors (id string, at long, place object);
CREATE UNIQUE INDEX ById ON TABLE Sensors WITH(type="hash", sparse="true", deduplicate="true") (id);
CREATE INDEX Sensors2 ON TABLE Sensors WITH(type="skiplist") (id, at);
CREATE INDEX Words ON TABLE Sensors WITH(type="fulltext", minLength="3") (id);
CREATE INDEX Places ON TABLE Sensors WITH(type="geo", geoJson="false") (place);
CREATE INDEX Old ON TABLE Sensors WITH(type="ttl", expireAfter="3600") (at);
CREATE SECONDARY INDEX Old ON STORE Sensors (at)
