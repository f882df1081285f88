CREATE TYPE text_range AS RANGE (subtype = text);
CREATE TABLE ranges (id int PRIMARY KEY, ints int4range, bigs int8range, nums numrange, times tsrange, zoned tstzrange,
    days daterange, words text_range);
CREATE TABLE multiranges (id int PRIMARY KEY, ints int4multirange, bigs int8multirange, nums nummultirange, times tsmultirange,
    zoned tstzmultirange, days datemultirange);

-- operations
INSERT INTO ranges VALUES (1, '[1,5)', '(1,5]', '[1.50,2.5]', '[2020-01-01,2020-02-01 12:00:00.5)', '[2020-01-01 00:00+02,)',
    '[2020-01-01,2020-02-01]', '[a,"b c")');
INSERT INTO ranges VALUES (2, 'empty', '(,)', '(,1]', '[-infinity,infinity]', '(,2020-01-01 00:00+00]', '(,infinity)', '["",)');
INSERT INTO ranges (id) VALUES (3);
UPDATE ranges SET ints = '[2,3]';
DELETE FROM ranges WHERE id IN (1, 3);
INSERT INTO multiranges VALUES (1, '{[1,5),[7,9)}', '{}', '{[1.5,2.5]}', '{[2020-01-01,2020-02-01)}', '{[2020-01-01 00:00+02,)}',
    '{[2020-01-01,2020-02-01]}');
INSERT INTO multiranges (id) VALUES (2);
UPDATE multiranges SET ints = '{}' WHERE id = 1;
DELETE FROM multiranges WHERE id = 1;
