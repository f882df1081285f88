SELECT pg_replication_origin_create('elsewhere');
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/AB', '2024-01-01 00:00:00+00');
INSERT INTO one VALUES (10);
COMMIT;
SELECT pg_replication_origin_session_reset();
DELETE FROM one;
