INSERT INTO by_key VALUES (1, 'one', 'small', 'p');
UPDATE by_key SET plain = 'q' WHERE a = 1;
DELETE FROM by_key;
