-- needs hstore
CREATE TABLE hstores (id int PRIMARY KEY, pairs hstore, required hstore NOT NULL DEFAULT 'a=>1', many hstore[]);

-- operations
INSERT INTO hstores VALUES (1, '"a b"=>"1", "q\"\\"=>NULL, "c"=>""', 'x=>y', ARRAY['a=>1'::hstore]);
INSERT INTO hstores VALUES (2, '', '', '{}');
INSERT INTO hstores (id) VALUES (3);
UPDATE hstores SET pairs = pairs || 'n=>1';
UPDATE hstores SET id = 4 WHERE id = 1;
DELETE FROM hstores;
