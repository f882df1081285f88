-- What this database publishes: the tables of the slices that are followed from here, and of these tables no column that
-- no slice of the plan needs. So no row of any other table, and no value that the plan keeps out, is ever sent. A table
-- without a key is left out: if it were published, the application's own updates of it would fail. An unlogged table cannot
-- be published at all.

-- The slices that are followed, and which of their tables. strangler's role changes it by `publish` alone.
CREATE TABLE IF NOT EXISTS strangler.published (
    slice text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('moved', 'reference')),
    PRIMARY KEY (slice, kind)
);

-- The columns that a table was published with; none if all. What is published otherwise was changed by others.
CREATE TABLE IF NOT EXISTS strangler.listed (
    on_table text PRIMARY KEY,
    columns text[]
);

-- The plan's tables: whether they are to be published, whether they can be, and with which columns; null for all. The
-- columns of the replica identity are always among them, or the application's own updates would fail. Under REPLICA
-- IDENTITY FULL that is every column, so a table that needs it is published whole, too: one whose `set` reads a column
-- with large values. Servers before 15 have no lists of columns.
CREATE OR REPLACE FUNCTION strangler.publishable()
RETURNS TABLE (rel regclass, is_wanted boolean, is_fit boolean, is_whole boolean, columns text[], left_out text[])
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH named AS (
        SELECT to_regclass(format('%I.%I', t->>'schema', t->>'name')) AS rel, t->'left_out' AS left_out, t->'read' AS read,
               EXISTS (SELECT FROM strangler.published p WHERE p.slice = s->>'slice' AND p.kind = t->>'kind') AS is_wanted
        FROM strangler.installed i, jsonb_array_elements(i.facts->'slices') s, jsonb_array_elements(s->'published') t
    ), tables AS (
        SELECT n.rel, bool_or(n.is_wanted) AS is_wanted FROM named n WHERE n.rel IS NOT NULL GROUP BY n.rel
    ), identities AS (
        -- The server identifies a row only by a valid index that is checked at once (PostgreSQL source, `relcache.c`).
        SELECT t.rel, c.relpersistence = 'p' AND (c.relreplident = 'f' OR EXISTS (
                   SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indimmediate AND x.indisvalid
                       AND CASE c.relreplident WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE false END)) AS is_fit,
               c.relreplident = 'f' AS is_full,
               ARRAY(SELECT a.attname::text FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid
                         AND a.attnum = ANY (x.indkey::int2[])
                     WHERE x.indrelid = c.oid AND (x.indisprimary OR x.indisreplident)) AS key
        FROM tables t, strangler.relations(ARRAY[t.rel]) r JOIN pg_class c ON c.oid = r.rel
    ), columns AS (
        SELECT t.rel, a.attnum, a.attname::text AS name,
               NOT EXISTS (SELECT FROM named n WHERE n.rel = t.rel AND NOT coalesce(n.left_out ? a.attname, false))
                   AND NOT EXISTS (SELECT FROM identities i WHERE i.rel = t.rel AND a.attname = ANY (i.key)) AS is_left_out,
               -- Values that the stream leaves out if they did not change, but under REPLICA IDENTITY FULL.
               EXISTS (SELECT FROM named n WHERE n.rel = t.rel AND n.read ? a.attname) AND a.attlen = -1 AND a.attstorage <> 'p'
                   AND NOT (y.typname = 'numeric' AND a.atttypmod >= 4 AND ((a.atttypmod - 4) >> 16) <= 28)
                   AND NOT (y.typname IN ('varchar', 'bpchar') AND a.atttypmod BETWEEN 4 AND 8) AS needs_full
        FROM tables t JOIN pg_attribute a ON a.attrelid = t.rel AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        JOIN pg_type y ON y.oid = a.atttypid
    )
    SELECT t.rel, t.is_wanted, i.is_fit, w.is_whole, CASE WHEN NOT w.is_whole THEN c.kept END, c.left_out
    FROM tables t,
         LATERAL (SELECT bool_and(o.is_fit) AS is_fit, bool_or(o.is_full) AS is_full FROM identities o WHERE o.rel = t.rel) i,
         LATERAL (SELECT coalesce(array_agg(o.name ORDER BY o.attnum) FILTER (WHERE NOT o.is_left_out), '{}') AS kept,
                         coalesce(array_agg(o.name ORDER BY o.attnum) FILTER (WHERE o.is_left_out), '{}') AS left_out,
                         bool_or(o.needs_full) AS needs_full FROM columns o WHERE o.rel = t.rel) c,
         LATERAL (SELECT c.left_out = '{}' OR i.is_full OR c.needs_full
                         OR current_setting('server_version_num')::int < 150000 AS is_whole) w
$$;

-- What is published now, of which columns (null for all), and whether of which rows is said, too.
CREATE OR REPLACE FUNCTION strangler.publication_now(publication text)
RETURNS TABLE (rel regclass, columns text[], is_filtered boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.prrelid::regclass, l.columns, to_jsonb(r)->>'prqual' IS NOT NULL
    FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid,
         LATERAL (SELECT array_agg(a.attname::text ORDER BY a.attnum) AS columns FROM pg_attribute a
                  WHERE a.attrelid = r.prrelid AND a.attnum::text IN (SELECT jsonb_array_elements_text(nullif(to_jsonb(r)->'prattrs', 'null')))) l
    WHERE p.pubname = publication
$$;

-- Publishes what is wanted, and nothing else. A table that stays is not touched, whatever columns the plan keeps out of it
-- by now: a bridge takes every change for a gap. But one that others published otherwise is published anew.
CREATE OR REPLACE FUNCTION strangler.publish_work() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    publication text := (SELECT i.facts->>'publication' FROM strangler.installed i LIMIT 1);
    one record;
BEGIN
    FOR one IN
        SELECT coalesce(n.rel, w.rel) AS rel, w.columns, n.rel IS NOT NULL AS leaves, w.rel IS NOT NULL AS comes
        FROM strangler.publication_now(publication) n
            FULL JOIN (SELECT * FROM strangler.publishable() p WHERE p.is_wanted AND p.is_fit) w ON w.rel = n.rel
            LEFT JOIN strangler.listed l ON l.on_table = n.rel::text
        WHERE n.rel IS NULL OR w.rel IS NULL OR n.is_filtered OR n.columns IS DISTINCT FROM l.columns
        ORDER BY coalesce(n.rel, w.rel)::text
    LOOP
        IF one.leaves THEN
            EXECUTE format('ALTER PUBLICATION %I DROP TABLE ONLY %s', publication, one.rel);
            DELETE FROM strangler.listed l WHERE l.on_table = one.rel::text;
        END IF;
        IF one.comes THEN
            EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY %s%s', publication, one.rel,
                (SELECT format(' (%s)', string_agg(quote_ident(c), ', ')) FROM unnest(one.columns) c HAVING count(*) > 0));
            INSERT INTO strangler.listed (on_table, columns) VALUES (one.rel::text, one.columns)
                ON CONFLICT (on_table) DO UPDATE SET columns = excluded.columns;
        END IF;
    END LOOP;
END
$$;

-- Publishes the tables of a slice of these kinds, and no others of it. A table that others took out of the publication
-- since then stays out: its slice stops, and someone decides.
CREATE OR REPLACE FUNCTION strangler.publish(of_slice text, kinds text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
BEGIN
    IF ARRAY(SELECT p.kind FROM strangler.published p WHERE p.slice = of_slice ORDER BY 1) = ARRAY(SELECT unnest(kinds) ORDER BY 1) THEN
        RETURN;
    END IF;
    LOCK TABLE strangler.published IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM strangler.published p WHERE p.slice = of_slice;
    INSERT INTO strangler.published (slice, kind) SELECT DISTINCT of_slice, unnest(kinds);
    PERFORM strangler.publish_work();
END
$$;

DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    before jsonb := current_setting('strangler.facts_before')::jsonb;
    publication text := facts->>'publication';
    us text := facts->>'role';
    told text;
    -- Each slice that is followed from here, with its stage.
    followed jsonb;
    torn record;
    one record;
BEGIN
    FOR one IN SELECT p.oid::regprocedure AS signature FROM pg_catalog.pg_proc p
               WHERE p.pronamespace = 'strangler'::regnamespace AND p.proname IN ('publishable', 'publication_now', 'publish_work', 'publish')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', one.signature);
    END LOOP;
    EXECUTE format('GRANT EXECUTE ON FUNCTION strangler.publish(text, text[]) TO %I', us);

    IF facts->>'side' = 'monolith' THEN
        SELECT coalesce(jsonb_object_agg(slice, stage->>'stage'), '{}') INTO followed FROM strangler.slice
            WHERE stage->>'stage' NOT IN ('monolith', 'retired');
        -- After `complete` only what the service reads is followed.
        INSERT INTO strangler.published (slice, kind) SELECT slice, 'reference' FROM strangler.slice
            WHERE stage->>'stage' = 'retired' ON CONFLICT DO NOTHING;
    ELSE
        SELECT coalesce(jsonb_object_agg(slice, 'split'), '{}') INTO followed FROM strangler.stream WHERE direction = 'reverse';
    END IF;
    INSERT INTO strangler.published (slice, kind)
        SELECT s, k FROM jsonb_object_keys(followed) s, unnest(ARRAY['moved', 'reference']) k ON CONFLICT DO NOTHING;
    DELETE FROM strangler.published p WHERE NOT EXISTS (
        SELECT FROM strangler.installed i, jsonb_array_elements(i.facts->'slices') s WHERE s->>'slice' = p.slice);

    -- No table of a slice that is followed leaves, and none gets columns that its copy lacks.
    SELECT s->>'slice' AS slice, followed->>(s->>'slice') AS stage, to_regclass(format('%I.%I', t->>'schema', t->>'name')) AS rel
        INTO torn
        FROM jsonb_array_elements(before->'slices') s,
             LATERAL jsonb_array_elements(coalesce(s->'published', (s->'moved') || (s->'reference'))) t
        WHERE followed ? (s->>'slice') AND to_regclass(format('%I.%I', t->>'schema', t->>'name')) <> ALL (
            ARRAY(SELECT p.rel FROM strangler.publishable() p WHERE p.is_wanted AND p.is_fit))
        ORDER BY 1, 3 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'slice % is %, and its table % would leave publication %: the copy would miss changes',
            torn.slice, torn.stage, torn.rel, publication
            USING HINT = format(CASE WHEN torn.stage IN ('copying', 'following')
                THEN 'Give the copy up first: `strangler sync drop %1$s`, then `strangler install` again. Or let the table stay in the plan, with its primary key.'
                ELSE 'End the move first: `strangler rollback %1$s` and `strangler sync drop %1$s`, or `strangler complete %1$s`. Or let the table stay in the plan, with its primary key.'
                END, torn.slice);
    END IF;
    SELECT s->>'slice' AS slice, followed->>(s->>'slice') AS stage, n.rel, c.name INTO torn
        FROM jsonb_array_elements(before->'slices') s, LATERAL jsonb_array_elements(s->'published') t,
             LATERAL jsonb_array_elements_text(t->'left_out') c (name),
             strangler.publication_now(publication) n, strangler.publishable() p
        WHERE followed ? (s->>'slice') AND n.rel = to_regclass(format('%I.%I', t->>'schema', t->>'name')) AND p.rel = n.rel
            AND c.name <> ALL (n.columns) AND c.name <> ALL (p.left_out)
            AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = n.rel AND a.attname = c.name AND NOT a.attisdropped)
        ORDER BY 1, 3, 4 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'slice % is %, and column % of its table % is not published: the copy lacks its values',
            torn.slice, torn.stage, torn.name, torn.rel
            USING HINT = format('Give the copy up first: `strangler sync drop %1$s`, then `strangler install` again. Or let the plan keep the column out as before.', torn.slice);
    END IF;

    SELECT string_agg(p.rel::text, ', ' ORDER BY p.rel::text) INTO told FROM strangler.publishable() p WHERE NOT p.is_fit;
    IF told IS NOT NULL THEN
        RAISE WARNING 'not published, because it is unlogged or has no primary key that is checked at once: %', told
            USING HINT = 'Make each table logged, give it a primary key that is not deferrable, and run `strangler install` again.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = publication) THEN
        IF NOT (facts->>'is_source')::boolean THEN
            RETURN;
        END IF;
        EXECUTE format('CREATE PUBLICATION %I WITH (publish_via_partition_root = true)', publication);
    END IF;
    IF NOT (SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot
            FROM pg_catalog.pg_publication WHERE pubname = publication) THEN
        EXECUTE format('ALTER PUBLICATION %I SET (publish = %L, publish_via_partition_root = true)',
                       publication, 'insert, update, delete, truncate');
    END IF;
    PERFORM strangler.publish_work();
    SELECT string_agg(format('%s of %s', array_to_string(ARRAY(
            SELECT c FROM unnest(p.left_out) c WHERE n.rel IS NULL OR n.columns IS NULL OR c = ANY (n.columns)), ', '), p.rel), '; '
            ORDER BY p.rel::text) INTO told
        FROM strangler.publishable() p LEFT JOIN strangler.publication_now(publication) n ON n.rel = p.rel
        WHERE CASE WHEN n.rel IS NULL THEN p.is_whole ELSE n.columns IS NULL OR n.columns && p.left_out END AND p.left_out <> '{}';
    IF told IS NOT NULL THEN
        RAISE WARNING 'the server sends these columns to the bridge, which keeps them out of every log: %', told
            USING HINT = 'The server can leave out columns from PostgreSQL 15 on, and not under REPLICA IDENTITY FULL. A slice that is followed must be copied again for it.';
    END IF;
END
$$;
