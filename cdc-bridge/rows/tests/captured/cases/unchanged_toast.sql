INSERT INTO by_key VALUES (1, 'one', repeat('x', 4000), 'p');
INSERT INTO by_full VALUES (1, repeat('y', 4000), 'p');
UPDATE by_key SET plain = 'q';
UPDATE by_key SET a = 2;
UPDATE by_full SET plain = 'q';
DELETE FROM by_key;
DELETE FROM by_full;
