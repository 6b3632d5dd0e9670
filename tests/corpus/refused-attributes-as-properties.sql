-- refused 4:36 expected '=' after the property cardNo
@App:name('refused-attributes-as-properties')
@App:qlVersion('2')
CREATE SOURCE Cards WITH (cardNo   string, cardType string);
