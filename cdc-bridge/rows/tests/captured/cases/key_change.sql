INSERT INTO by_key VALUES (1, 'one', NULL, 'p');
UPDATE by_key SET a = 2;
DELETE FROM by_key;
