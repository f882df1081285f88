-- needs citext
CREATE TABLE citexts (id citext PRIMARY KEY, word citext, required citext NOT NULL DEFAULT 'X', words citext[]);

-- operations
INSERT INTO citexts VALUES ('Abc', 'DeF', 'g', '{A,b}');
UPDATE citexts SET id = 'abc';
UPDATE citexts SET word = 'def';
DELETE FROM citexts;
