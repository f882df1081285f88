CREATE TYPE mood AS ENUM ('sad', 'so so', 'it''s', 'happy,"er"', 'Glücklich');
CREATE TABLE texts (id int PRIMARY KEY, plain text, short varchar(10), any_length varchar, padded char(6), one char,
    letter "char", label name, feeling mood, document xml, shape json, shape_b jsonb, path jsonpath, identifier uuid,
    bytes bytea);

-- operations
INSERT INTO texts VALUES (1, '', '', '', '', '', '', '', 'sad', '<a/>', '{}', '{}', '$', '00000000-0000-0000-0000-000000000000', '');
INSERT INTO texts VALUES (2, 'a "b" \ / c', 'a	b', E'line\nline', 'ab', 'x', 'x', 'Name', 'so so', '<a b="c">d &amp; e</a>',
    '{ "b" : 1,  "a": [1, 2.50, null, "\u00e9"], "a": 2 }', '{ "b" : 1,  "a": [1, 2.50, null, "\u00e9", 1e3], "a": 2 }',
    '$.a[*] ? (@ > 1)', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '\x00ff7f80');
INSERT INTO texts VALUES (3, E'\u0001\u001f\u007f\u0080\u2028\u00e9 日本 🐘 ‏', 'žluťoučký', '🐘', 'ä', 'ß', 'y', 'ñ', 'it''s',
    '<?xml version="1.0"?><a>é</a>', '"text"', '"text 🐘"', '$', gen_random_uuid(), 'plain');
INSERT INTO texts (id) VALUES (4);
INSERT INTO texts VALUES (5, '</script>&<>''', 'null', 'NULL', 'true', '1', '0', 'null', 'happy,"er"', 'no element', 'null', 'null',
    'strict $', gen_random_uuid(), '\xdeadbeef');
INSERT INTO texts VALUES (6, repeat('long ', 300), '', '', '', '', '', '', 'Glücklich', '', '[]', '[[], {}, "", 0, -0.0, 1e-7]',
    '$', gen_random_uuid(), decode(repeat('ab', 600), 'hex'));
UPDATE texts SET plain = plain || '!', feeling = 'sad';
UPDATE texts SET shape_b = shape_b || '{"more": 1}' WHERE id = 2;
DELETE FROM texts WHERE id IN (1, 4);
