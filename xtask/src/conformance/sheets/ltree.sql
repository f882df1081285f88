-- needs ltree
CREATE TABLE ltrees (id int PRIMARY KEY, path ltree, required ltree NOT NULL DEFAULT 'Top', many ltree[], query lquery);

-- operations
INSERT INTO ltrees VALUES (1, 'Top.Science.Astronomy', 'a.b', '{a.b,c}', '*.a');
INSERT INTO ltrees VALUES (2, '', '', '{}', NULL);
INSERT INTO ltrees (id) VALUES (3);
UPDATE ltrees SET path = 'x' WHERE id = 2;
UPDATE ltrees SET id = 4 WHERE id = 1;
DELETE FROM ltrees;
