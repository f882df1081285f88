CREATE TYPE address AS (street text, number int, since date, "odd name" numeric(5,2));
CREATE TYPE nested AS (home address, tags text[]);
CREATE TABLE shapes (id int PRIMARY KEY, dot point, endless line, piece lseg, square box, way path, closed path, area polygon,
    round circle);
CREATE TABLE composites (id int PRIMARY KEY, home address, deep nested, homes address[], note text);

-- operations
INSERT INTO shapes VALUES (1, '(1,1)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1))', '((0,0),(1,1),(1,0))',
    '<(0,0),1>');
INSERT INTO shapes VALUES (2, '(-1.5,1e20)', '{0,1,-0.5}', '[(0.1,0.2),(1e-7,3)]', '(1.5,2.5),(-1,-2)', '[(0,0)]', '((0,0))', '((0,0))',
    '<(1.5,-2.5),0>');
INSERT INTO shapes (id) VALUES (3);
INSERT INTO shapes (id, dot) VALUES (4, '(NaN,Infinity)');
UPDATE shapes SET dot = '(2,3)', round = '<(0,0),2>' WHERE id IN (1, 3);
DELETE FROM shapes WHERE id IN (1, 3);
INSERT INTO composites VALUES (1, ('Main "St", 5', 5, '2020-01-01', 1.5), (('a', 1, NULL, NULL)::address, '{x,"y z"}'),
    ARRAY[('b', 2, NULL, NULL)::address], 'n');
INSERT INTO composites (id) VALUES (2);
UPDATE composites SET note = 'm';
DELETE FROM composites WHERE id = 1;
