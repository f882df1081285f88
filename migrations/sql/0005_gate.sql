-- The gate: triggers that refuse every writer but strangler's role. They are made disabled; shutting enables
-- them ALWAYS, opening disables them. Both wait for writers and for no reader. The functions here do the work for
-- whoever calls them; what a slice may do by them is in 0006_slices.sql.

-- A table and everything below it, in the one order in which we ever lock tables.
CREATE OR REPLACE FUNCTION strangler.relations(roots regclass[])
RETURNS TABLE (rel regclass, kind "char", is_root boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tree (oid, is_root) AS (
        SELECT root::oid, true FROM unnest(roots) AS root
        UNION ALL
        SELECT i.inhrelid, false FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
    )
    SELECT c.oid::regclass, c.relkind, bool_or(tree.is_root)
    FROM tree JOIN pg_class c ON c.oid = tree.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p')
    GROUP BY c.oid, c.relkind, n.nspname, c.relname
    ORDER BY n.nspname, c.relname
$$;

-- Makes the triggers that are missing, e.g. on a partition that is new. Takes no lock where none is missing.
-- A row trigger on a partitioned table goes to its future partitions by itself, in the parent's state.
CREATE OR REPLACE FUNCTION strangler.gate_cover(slice text, service text, kind text, roots text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
    wanted record;
BEGIN
    FOR one IN SELECT * FROM strangler.relations(roots::regclass[]) LOOP
        FOR wanted IN
            SELECT 'strangler_gate_' || slice AS name, 'INSERT OR UPDATE OR DELETE OR TRUNCATE' AS events, 'STATEMENT' AS each
            UNION ALL
            SELECT 'strangler_gate_' || slice || '_row', 'INSERT OR UPDATE OR DELETE', 'ROW'
            WHERE one.kind = 'p' AND one.is_root
        LOOP
            CONTINUE WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = one.rel AND tgname = wanted.name);
            EXECUTE format('CREATE TRIGGER %I BEFORE %s ON %s FOR EACH %s EXECUTE FUNCTION strangler.refuse(%L, %L, %L)',
                           wanted.name, wanted.events, one.rel, wanted.each, slice, service, kind);
            EXECUTE format('ALTER TABLE %s %s DISABLE TRIGGER %I',
                           CASE wanted.each WHEN 'ROW' THEN '' ELSE 'ONLY' END, one.rel, wanted.name);
        END LOOP;
    END LOOP;
END
$$;

-- Switches the triggers of the tables. Those that stand right already are left alone, without a lock.
CREATE OR REPLACE FUNCTION strangler.gate_turn(slice text, shut boolean, roots text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT r.rel, t.tgname
        FROM strangler.relations(roots::regclass[]) WITH ORDINALITY AS r (rel, kind, is_root, place)
        JOIN pg_trigger t ON t.tgrelid = r.rel
        WHERE t.tgname IN ('strangler_gate_' || slice, 'strangler_gate_' || slice || '_row')
            AND t.tgenabled <> CASE WHEN shut THEN 'A' ELSE 'D' END::"char"
        ORDER BY r.place, t.tgname
    LOOP
        EXECUTE format('ALTER TABLE ONLY %s %s TRIGGER %I',
                       one.rel, CASE WHEN shut THEN 'ENABLE ALWAYS' ELSE 'DISABLE' END, one.tgname);
    END LOOP;
END
$$;

-- Switches off the user triggers that the plan marks `skip`, or puts them back as they were.
CREATE OR REPLACE FUNCTION strangler.gate_skip(slice text, is_on boolean, names text[], roots text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
BEGIN
    IF is_on THEN
        FOR one IN
            SELECT r.rel, t.tgname, t.tgenabled
            FROM strangler.relations(roots::regclass[]) AS r JOIN pg_trigger t ON t.tgrelid = r.rel
            WHERE NOT t.tgisinternal AND t.tgname = ANY (names) AND t.tgenabled <> 'D'
            ORDER BY r.rel::text, t.tgname
        LOOP
            INSERT INTO strangler.skipped_trigger (slice, on_table, name, was)
                VALUES (slice, one.rel::text, one.tgname, one.tgenabled)
                ON CONFLICT ON CONSTRAINT skipped_trigger_pkey DO UPDATE SET was = excluded.was;
            EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', one.rel, one.tgname);
        END LOOP;
        RETURN;
    END IF;
    -- The table is named by the catalog, never by the text that was kept: others than we may write that text.
    FOR one IN
        SELECT t.tgrelid::regclass AS rel, t.tgname, s.was FROM strangler.skipped_trigger s
        JOIN pg_trigger t ON t.tgrelid = to_regclass(s.on_table) AND t.tgname = s.name
        WHERE s.slice = gate_skip.slice ORDER BY s.on_table, s.name
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', one.rel,
                       CASE one.was WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' ELSE '' END, one.tgname);
    END LOOP;
    DELETE FROM strangler.skipped_trigger s WHERE s.slice = gate_skip.slice;
END
$$;

-- Takes the triggers away, from all tables but those that `stay`, whether the plan still names them or not. Dropping
-- waits for readers too, hence the short lock_timeout of its callers.
CREATE OR REPLACE FUNCTION strangler.gate_leave(slice text, stay text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT t.tgrelid::regclass AS rel, t.tgname
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE p.pronamespace = 'strangler'::regnamespace AND p.proname = 'refuse' AND t.tgparentid = 0
            AND t.tgname IN ('strangler_gate_' || slice, 'strangler_gate_' || slice || '_row')
            AND t.tgrelid NOT IN (SELECT r.rel FROM strangler.relations(stay::regclass[]) AS r)
        ORDER BY t.tgrelid::regclass::text, t.tgname
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', one.tgname, one.rel);
    END LOOP;
END
$$;

-- What the triggers call. Strangler's role is known by its session, which no setting and no SET ROLE changes.
-- Operators are spelled out, because the search_path here is the writer's own.
DO $do$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    told text := CASE facts->>'side'
        WHEN 'monolith' THEN $said$
    RAISE EXCEPTION 'slice % has left the monolith: table %.% is written by service % now', TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[1]
        USING ERRCODE = 'STR01', HINT = 'Send the write to the service; `strangler status` shows who owns the slice.';$said$
        ELSE $said$
    IF TG_ARGV[2] OPERATOR(pg_catalog.=) 'reference' THEN
        RAISE EXCEPTION 'table %.% is a copy that service % only reads (slice %)', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[1], TG_ARGV[0]
            USING ERRCODE = 'STR01', HINT = 'Write it where it lives, in the monolith; the change comes here by itself.';
    END IF;
    RAISE EXCEPTION 'slice % still belongs to the monolith: table %.% is not written by service % yet', TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[1]
        USING ERRCODE = 'STR01', HINT = 'Send the write to the monolith; `strangler status` shows who owns the slice.';$said$
        END;
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION strangler.refuse() RETURNS trigger LANGUAGE plpgsql AS %L', format($body$
BEGIN
    IF session_user OPERATOR(pg_catalog.=) %L::pg_catalog.name THEN
        IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;%s
END
$body$, facts->>'role', told));
END
$do$;
