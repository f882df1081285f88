INSERT INTO by_full VALUES (1, 'small', 'p'), (2, NULL, NULL);
UPDATE by_full SET plain = 'q' WHERE id = 1;
UPDATE by_full SET id = 3 WHERE id = 2;
DELETE FROM by_full;
