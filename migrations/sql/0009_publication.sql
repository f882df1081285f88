-- What this database publishes: the monolith publishes all tables of the plan, a service the tables that a rollback
-- brings back. A table without a key is left out: if it were published, the application's own updates of it would fail.
-- An unlogged table cannot be published at all.
DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    name text := facts->>'publication';
    published text;
    left_out text;
BEGIN
    WITH listed AS (
        SELECT DISTINCT format('%I.%I', t->>'schema', t->>'name')::regclass AS rel
        FROM strangler.installed i, jsonb_array_elements(i.facts->'slices') s, LATERAL jsonb_array_elements(
            CASE WHEN i.part = 'monolith' THEN (s->'moved') || (s->'reference')
                 WHEN i.facts->'returns' ? (s->>'slice') THEN s->'moved' ELSE '[]' END) t
    ), judged AS (
        SELECT l.rel, (
            -- The server identifies a row only by a valid index that is checked at once (PostgreSQL source, `relcache.c`).
            SELECT bool_and(c.relpersistence = 'p' AND (c.relreplident = 'f' OR EXISTS (
                SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid AND x.indimmediate AND x.indisvalid
                    AND CASE c.relreplident WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE false END)))
            FROM strangler.relations(ARRAY[l.rel]) r JOIN pg_catalog.pg_class c ON c.oid = r.rel) AS is_fit
        FROM listed l
    )
    SELECT string_agg(rel::text, ', ' ORDER BY rel::text) FILTER (WHERE is_fit),
           string_agg(rel::text, ', ' ORDER BY rel::text) FILTER (WHERE NOT is_fit)
        INTO published, left_out FROM judged;

    IF left_out IS NOT NULL THEN
        RAISE WARNING 'not published, because it is unlogged or has no primary key that is checked at once: %', left_out
            USING HINT = 'Make each table logged, give it a primary key that is not deferrable, and run `strangler install` again.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = name) THEN
        IF NOT (facts->>'is_source')::boolean THEN
            RETURN;
        END IF;
        EXECUTE format('CREATE PUBLICATION %I WITH (publish_via_partition_root = true)', name);
    END IF;
    EXECUTE format('ALTER PUBLICATION %I SET (publish = %L, publish_via_partition_root = true)',
                   name, 'insert, update, delete, truncate');
    IF published IS NOT NULL THEN
        EXECUTE format('ALTER PUBLICATION %I SET TABLE %s', name, published);
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_publication_tables WHERE pubname = name) THEN
        EXECUTE format('ALTER PUBLICATION %I DROP TABLE %s', name,
            (SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_catalog.pg_publication_tables WHERE pubname = name));
    END IF;
END
$$;
