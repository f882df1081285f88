INSERT INTO by_index VALUES (1, 'c1', 'p');
UPDATE by_index SET plain = 'q';
UPDATE by_index SET code = 'c2';
UPDATE by_index SET id = 7;
DELETE FROM by_index;
