-- Removes everything of strangler's from this database. What is missing already is passed over.
SET LOCAL lock_timeout = '5s';

DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    one record;
BEGIN
    EXECUTE format('DROP PUBLICATION IF EXISTS %I', facts->>'publication');
    IF to_regnamespace('strangler') IS NULL THEN
        RETURN;
    END IF;
    -- The catalog names the table, never the stored text: others may write that text.
    IF to_regclass('strangler.skipped_trigger') IS NOT NULL THEN
        FOR one IN EXECUTE $q$
            SELECT t.tgrelid::regclass AS rel, t.tgname, s.was FROM strangler.skipped_trigger s
            JOIN pg_catalog.pg_trigger t ON t.tgrelid = to_regclass(s.on_table) AND t.tgname = s.name
            ORDER BY s.on_table, s.name$q$
        LOOP
            EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', one.rel,
                           CASE one.was WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' ELSE '' END, one.tgname);
        END LOOP;
    END IF;
    -- Dropping the schema drops the functions that our triggers call. The triggers go first, tables in name order.
    FOR one IN
        SELECT t.tgrelid::regclass AS rel, t.tgname
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        WHERE p.pronamespace = 'strangler'::regnamespace AND p.proname IN ('refuse', 'note_writer') AND t.tgparentid = 0
        ORDER BY t.tgrelid::regclass::text, t.tgname
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', one.tgname, one.rel);
    END LOOP;
    DROP SCHEMA strangler CASCADE;
END
$$;
