-- REPLICA IDENTITY USING INDEX is missing: `doctor` refuses such a table.
CREATE TABLE identity_default (id int PRIMARY KEY, code text NOT NULL, amount numeric(10,2) NOT NULL, note text, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE identity_full (id int PRIMARY KEY, code text NOT NULL, amount numeric(10,2), note text DEFAULT 'd', big text, at timestamp(3));
ALTER TABLE identity_full REPLICA IDENTITY FULL;
ALTER TABLE identity_full ALTER big SET STORAGE EXTERNAL;

-- operations
INSERT INTO identity_default VALUES (1, 'a', 1.5, 'x'), (2, 'b', 2.5, NULL), (3, 'c', 3.5, 'z');
UPDATE identity_default SET note = 'y' WHERE id = 1;
UPDATE identity_default SET id = 10 WHERE id = 1;
UPDATE identity_default SET id = 20, code = 'bb', note = 'n' WHERE id = 2;
UPDATE identity_default SET code = code;
DELETE FROM identity_default;
INSERT INTO identity_full VALUES (1, 'a', 1.5, 'x', repeat('big ', 3000), '2020-01-02 03:04:05.678'), (2, 'b', NULL, NULL, NULL, NULL),
    (3, 'c', 3.5, 'z', repeat('BIG ', 3000), NULL);
UPDATE identity_full SET note = 'y' WHERE id = 1;
UPDATE identity_full SET amount = NULL WHERE id = 3;
UPDATE identity_full SET id = 10 WHERE id = 1;
UPDATE identity_full SET id = 20, code = 'bb', note = 'n' WHERE id = 2;
UPDATE identity_full SET code = code;
DELETE FROM identity_full;
