SET timezone = 'UTC';
INSERT INTO every_type VALUES (
    1, -32768, 2147483647, -9223372036854775808, 4294967295, true, 1.5e-10, 0.1,
    123456789.125, 12300, 1e30, 'tab	quote" back\ slash
line ünïcødé 🐘', 'varchar', 'ab', '\x00ff10', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a" :  1}', '{"b":[1,2.50,null]}',
    '0044-03-15 BC', '23:59:59', '24:00:00', '2016-11-04 13:51:30.123', '2016-11-04 13:51:30.123456',
    '2016-11-04 13:51:30.123456+02', 'it''s "ok"',
    '{{1,2},{3,NULL}}', '{"a b","",NULL,"NULL","q\"u\\o{te,"}', '{1.50,NaN,-0.000}',
    '{"2016-11-04 13:51:30+00",infinity}', '{sad,glücklich}', '{"\\xdead"}');
INSERT INTO every_type (id) VALUES (2);
INSERT INTO every_type (id, f4, f8, na, d, ts, tz) VALUES (3, 'NaN', '-Infinity', 'Infinity', 'infinity', '-infinity', 'infinity');
