-- expect worker empty-worker
@App:name('empty-worker')
@App:qlVersion('2');
;
