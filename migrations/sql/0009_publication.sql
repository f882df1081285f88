-- What this database publishes: the monolith publishes all tables of the plan, a service the tables that a rollback
-- brings back. A table without a key is left out: if it were published, the application's own updates of it would fail.
-- An unlogged table cannot be published at all. No table of a slice that is followed leaves: its copy would miss changes.
-- What is published as it should be is not touched: a bridge takes every ALTER of it for a gap.
DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    before jsonb := current_setting('strangler.facts_before')::jsonb;
    name text := facts->>'publication';
    fit regclass[];
    published text;
    left_out text;
    -- Each slice that is followed from here, with its stage.
    followed jsonb;
    torn record;
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
    SELECT coalesce(array_agg(rel) FILTER (WHERE is_fit), '{}'),
           string_agg(rel::text, ', ' ORDER BY rel::text) FILTER (WHERE is_fit),
           string_agg(rel::text, ', ' ORDER BY rel::text) FILTER (WHERE NOT is_fit)
        INTO fit, published, left_out FROM judged;

    IF facts->>'side' = 'monolith' THEN
        SELECT jsonb_object_agg(slice, stage->>'stage') INTO followed FROM strangler.slice
            WHERE stage->>'stage' NOT IN ('monolith', 'retired');
    ELSE
        SELECT jsonb_object_agg(slice, 'split') INTO followed FROM strangler.stream WHERE direction = 'reverse';
    END IF;
    SELECT s->>'slice' AS slice, followed->>(s->>'slice') AS stage, r.prrelid::regclass AS rel INTO torn
        FROM jsonb_array_elements(coalesce(before->'slices', '[]') || (facts->'slices')) s,
             LATERAL jsonb_array_elements((s->'moved') || (s->'reference')) t,
             pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
        WHERE p.pubname = name AND r.prrelid = to_regclass(format('%I.%I', t->>'schema', t->>'name'))
            AND followed ? (s->>'slice') AND r.prrelid <> ALL (fit)
        ORDER BY 1, 3 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'slice % is %, and its table % would leave publication %: the copy would miss changes',
            torn.slice, torn.stage, torn.rel, name
            USING HINT = format(CASE WHEN torn.stage IN ('copying', 'following')
                THEN 'Give the copy up first: `strangler sync drop %1$s`, then `strangler install` again. Or let the table stay in the plan, with its primary key.'
                ELSE 'End the move first: `strangler rollback %1$s` and `strangler sync drop %1$s`, or `strangler complete %1$s`. Or let the table stay in the plan, with its primary key.'
                END, torn.slice);
    END IF;

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
    IF NOT (SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot
            FROM pg_catalog.pg_publication WHERE pubname = name) THEN
        EXECUTE format('ALTER PUBLICATION %I SET (publish = %L, publish_via_partition_root = true)',
                       name, 'insert, update, delete, truncate');
    END IF;
    IF published IS NOT NULL THEN
        EXECUTE format('ALTER PUBLICATION %I SET TABLE %s', name, published);
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_publication_tables WHERE pubname = name) THEN
        EXECUTE format('ALTER PUBLICATION %I DROP TABLE %s', name,
            (SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_catalog.pg_publication_tables WHERE pubname = name));
    END IF;
END
$$;
