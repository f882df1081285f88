CREATE TABLE generated (id int PRIMARY KEY, net numeric(10,2) NOT NULL, gross numeric(10,2) GENERATED ALWAYS AS (net * 1.19) STORED, note text,
    loud text GENERATED ALWAYS AS (upper(note)) STORED);
CREATE TABLE dropped (id int PRIMARY KEY, gone text, note text, gone_too int NOT NULL, last int);
ALTER TABLE dropped DROP gone, DROP gone_too;

-- operations
INSERT INTO generated (id, net, note) VALUES (1, 1.5, 'a'), (2, 2.5, NULL);
UPDATE generated SET net = 3 WHERE id = 1;
UPDATE generated SET id = 5 WHERE id = 2;
DELETE FROM generated;
INSERT INTO dropped VALUES (1, 'a', 2);
UPDATE dropped SET last = 3;
DELETE FROM dropped;
