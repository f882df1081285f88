-- The gate: triggers that refuse every writer but strangler's role. They are made disabled; shutting enables
-- them ALWAYS, opening disables them. Both wait for writers and for no reader. The functions here work with the rights
-- of their caller; 0007_slices.sql makes the functions that lend the rights of the tables' owner.
--
-- SQLSTATEs: STR01 a write is refused; STR02 someone decided otherwise; STR03 the journal only grows; STR04 the slice has
-- no gate here; STR05 a lock was not had in time, nothing was changed, the same may be asked again.

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

-- Lets the next lock be waited for until the deadline: all locks of a gate together stall writers no longer than one.
CREATE OR REPLACE FUNCTION strangler.gate_wait(deadline timestamptz) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT set_config('lock_timeout', greatest(1, ceil(extract(epoch FROM deadline - clock_timestamp()) * 1000))::bigint::text, true)
$$;

-- Makes the triggers that are missing, e.g. on a partition that is new. Takes no lock where none is missing.
-- A row trigger on a partitioned table goes to its future partitions by itself, in the parent's state.
CREATE OR REPLACE FUNCTION strangler.gate_cover(slice text, service text, kind text, roots text[], deadline timestamptz)
RETURNS void
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
            PERFORM strangler.gate_wait(deadline);
            EXECUTE format('CREATE TRIGGER %I BEFORE %s ON %s FOR EACH %s EXECUTE FUNCTION strangler.refuse(%L, %L, %L)',
                           wanted.name, wanted.events, one.rel, wanted.each, slice, service, kind);
            EXECUTE format('ALTER TABLE %s %s DISABLE TRIGGER %I',
                           CASE wanted.each WHEN 'ROW' THEN '' ELSE 'ONLY' END, one.rel, wanted.name);
        END LOOP;
    END LOOP;
END
$$;

-- Switches the triggers of the tables. Those that stand right already are left alone, without a lock.
CREATE OR REPLACE FUNCTION strangler.gate_turn(slice text, shut boolean, roots text[], deadline timestamptz) RETURNS void
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
        PERFORM strangler.gate_wait(deadline);
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
        WHERE p.pronamespace = 'strangler'::regnamespace AND p.proname IN ('refuse', 'note_writer') AND t.tgparentid = 0
            AND t.tgname IN ('strangler_gate_' || slice, 'strangler_gate_' || slice || '_row', 'strangler_writers_' || slice)
            AND t.tgrelid NOT IN (SELECT r.rel FROM strangler.relations(stay::regclass[]) AS r)
        ORDER BY t.tgrelid::regclass::text, t.tgname
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', one.tgname, one.rel);
    END LOOP;
END
$$;

-- What is done to the gate of a slice: `make`, `fence`, `open`, `raise`, `rehearse`, `warm` or `unmake`. `what` names the slice
-- and its tables. Which deed is refused is the table of `migrations::gate`; a test holds the two to each other.
CREATE OR REPLACE FUNCTION strangler.gate_work(what jsonb, deed text, at_epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    named text := what->>'slice';
    is_monolith boolean := what->>'side' = 'monolith';
    moved text[] := ARRAY(SELECT jsonb_array_elements_text(what->'moved'));
    reference text[] := ARRAY(SELECT jsonb_array_elements_text(what->'reference'));
    -- Opening stalls no admitted writer and must not starve; the others stall those who come while they wait.
    patience interval := CASE WHEN deed = 'open' THEN '5s' WHEN deed IN ('make', 'unmake') THEN '500ms' ELSE '100ms' END;
    deadline timestamptz := clock_timestamp() + patience;
    stage text;
    head_epoch bigint;
    is_owner boolean;
    gate_epoch bigint;
    shut boolean;
    refused text;
    one record;
BEGIN
    PERFORM strangler.gate_wait(deadline);
    -- Locks are taken in one order everywhere: the head, the gate, the tables by name.
    IF is_monolith AND deed IN ('fence', 'open') THEN
        SELECT coalesce(h.stage, 'monolith'), coalesce(h.epoch, 0) INTO stage, head_epoch FROM strangler.head(named) h;
        is_owner := stage NOT IN ('cutting', 'split', 'returning', 'retired');
    END IF;
    IF deed = 'make' THEN
        -- A service's gate is shut from the beginning: the monolith owns its tables.
        INSERT INTO strangler.gate (slice, epoch, is_shut) VALUES (named, at_epoch, NOT is_monolith) ON CONFLICT (slice) DO NOTHING;
    ELSIF deed = 'unmake' THEN
        DELETE FROM strangler.gate g WHERE g.slice = named;
        PERFORM strangler.gate_skip(named, false, '{}', '{}');
        PERFORM strangler.gate_leave(named, '{}');
        RETURN;
    ELSIF deed = 'warm' THEN
        -- The first use in a session takes many times as long as later ones. Writers go on meanwhile: without tables, nothing
        -- is locked.
        PERFORM strangler.gate_cover(named, what->>'service', 'moved', '{}', deadline);
        PERFORM strangler.gate_turn(named, true, '{}', deadline);
        PERFORM strangler.gate_skip(named, true, '{}', '{}');
        RETURN;
    END IF;
    SELECT g.epoch, g.is_shut INTO gate_epoch, shut FROM strangler.gate g WHERE g.slice = named FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'slice % has no gate in this database', named
            USING ERRCODE = 'STR04', HINT = 'Run `strangler sync start`, which makes it.';
    END IF;
    refused := CASE
        WHEN deed IN ('fence', 'open', 'raise') AND at_epoch < gate_epoch THEN
            format('epoch %s of slice %s is stale: its gate has seen epoch %s', at_epoch, named, gate_epoch)
        WHEN deed = 'fence' AND is_monolith AND (is_owner OR head_epoch <> at_epoch) THEN
            format('slice %s is %s at epoch %s: its writes do not stop at epoch %s', named, stage, head_epoch, at_epoch)
        WHEN deed = 'open' AND is_monolith AND NOT is_owner THEN
            format('slice %s is %s at epoch %s: the monolith does not own it', named, stage, head_epoch)
        WHEN deed = 'fence' AND NOT is_monolith AND at_epoch = gate_epoch AND NOT shut THEN
            format('the gate of slice %s was opened at epoch %s: only a higher one shuts it', named, gate_epoch)
        WHEN deed = 'raise' AND NOT shut THEN
            format('the gate of slice %s is open at epoch %s', named, gate_epoch)
    END;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused
            USING ERRCODE = 'STR02', HINT = 'Someone decided after you: read `strangler journal` and ask again.';
    END IF;
    IF deed = 'rehearse' THEN
        BEGIN
            PERFORM strangler.gate_turn(named, NOT shut, moved, deadline);
            PERFORM strangler.gate_turn(named, shut, moved, deadline);
            RAISE EXCEPTION 'a rehearsal leaves nothing behind' USING ERRCODE = 'STR00';
        EXCEPTION WHEN SQLSTATE 'STR00' THEN
            RETURN;
        END;
    END IF;

    shut := CASE deed WHEN 'fence' THEN true WHEN 'open' THEN false ELSE shut END;
    IF deed IN ('make', 'open') THEN
        -- An autovacuum yields only to a lock that waits for longer than `deadlock_timeout`. This lock stalls no writer and no
        -- reader, and keeps the next vacuum off until the gate is turned.
        PERFORM strangler.gate_wait(clock_timestamp() + interval '1 s' + 2 * current_setting('deadlock_timeout')::interval);
        FOR one IN
            SELECT r.rel FROM strangler.relations((moved || reference)::regclass[]) WITH ORDINALITY AS r (rel, kind, is_root, place)
            LEFT JOIN pg_trigger t ON t.tgrelid = r.rel AND t.tgname = 'strangler_gate_' || named
            WHERE coalesce(t.tgenabled, ' ') <> CASE WHEN shut THEN 'A' ELSE 'D' END::"char" ORDER BY r.place
        LOOP
            EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', one.rel);
        END LOOP;
        deadline := clock_timestamp() + patience;
    END IF;
    IF deed IN ('make', 'fence') THEN
        PERFORM strangler.gate_cover(named, what->>'service', 'moved', moved, deadline);
        PERFORM strangler.gate_cover(named, what->>'service', 'reference', reference, deadline);
        -- A copy of a reference table stays shut when the slice's own tables open: the monolith still owns it.
        PERFORM strangler.gate_turn(named, true, reference, deadline);
    END IF;
    IF deed IN ('make', 'fence', 'open') THEN
        PERFORM strangler.gate_turn(named, shut, moved, deadline);
        PERFORM strangler.gate_wait(deadline);
        PERFORM strangler.gate_skip(named, shut, ARRAY(SELECT jsonb_array_elements_text(what->'skip')), moved || reference);
    END IF;
    IF deed IN ('fence', 'open', 'raise') THEN
        UPDATE strangler.gate g SET epoch = at_epoch, is_shut = shut WHERE g.slice = named;
    END IF;
    IF deed IN ('fence', 'open') THEN
        -- Whoever reads this database's changes and meets the fence has everything that was written before. What follows
        -- an opening is its owner's.
        PERFORM pg_logical_emit_message(true, 'strangler.' || deed, named || '@' || at_epoch);
    END IF;
END
$$;

-- As above; a lock that was not had in time is named with those who hold it, and nothing of the deed stays.
CREATE OR REPLACE FUNCTION strangler.gate_try(what jsonb, deed text, at_epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    holders text;
BEGIN
    PERFORM strangler.gate_work(what, deed, at_epoch);
EXCEPTION WHEN lock_not_available THEN
    -- Another user's statement is not shown to us, but that it is a vacuum is.
    -- Nor is what the user's session does. If it waits for its client, there is nothing to cancel.
    SELECT string_agg(DISTINCT coalesce(CASE
            WHEN EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = l.pid)
                THEN format('process %s (a vacuum; SELECT pg_cancel_backend(%1$s) ends it)', l.pid)
            WHEN EXISTS (SELECT FROM pg_stat_progress_analyze v WHERE v.pid = l.pid)
                THEN format('process %s (an analyze; SELECT pg_cancel_backend(%1$s) ends it)', l.pid)
            ELSE format('process %s (%s, %s; SELECT %s(%1$s) ends it)', l.pid, coalesce(nullif(a.application_name, ''), 'unnamed'), l.mode,
                        CASE a.state WHEN 'active' THEN 'pg_cancel_backend' ELSE 'pg_terminate_backend' END)
            END, 'a prepared transaction'), ', ') INTO holders
        FROM pg_locks l
        JOIN strangler.relations(ARRAY(SELECT jsonb_array_elements_text((what->'moved') || (what->'reference')))::regclass[]) r
            ON r.rel = l.relation
        LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
            AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
    RAISE EXCEPTION 'the gate of slice % is busy: a lock was not had in time', what->>'slice'
        USING ERRCODE = 'STR05', DETAIL = coalesce('Its tables are held by ' || holders, 'Nobody holds its tables any more') || '.',
              HINT = 'Nothing was changed: ask again. `strangler doctor` names long transactions.';
END
$$;

-- What a writer is told, in words that never fail him twice. An old snapshot may not see yet why the gate is shut.
CREATE OR REPLACE FUNCTION strangler.refusal(
    slice text, service text, kind text, on_table text, OUT message text, OUT hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stage text;
    at_epoch bigint;
    back text := 'Try it again in a moment: the owner then takes it, and `strangler status` shows who that is.';
BEGIN
    message := format('slice %s is shut here, on its way from or to service %s: table %s is not written now', slice, service, on_table);
    hint := 'Try it again in a new transaction; `strangler status` shows who owns the slice.';
    IF kind = 'reference' THEN
        message := format('table %s is a copy that service %s only reads (slice %s)', on_table, service, slice);
        hint := 'Write it where it lives, in the monolith; the change comes here by itself.';
    ELSIF to_regclass('strangler.slice') IS NULL THEN
        SELECT g.epoch INTO at_epoch FROM strangler.gate g WHERE g.slice = refusal.slice;
        message := format('slice %s belongs to the monolith (epoch %s): table %s is not written by service %s now', slice, at_epoch, on_table, service);
        hint := 'Send the write to the monolith; `strangler status` shows who owns the slice.';
    ELSE
        SELECT s.stage->>'stage', s.epoch INTO stage, at_epoch FROM strangler.slice s WHERE s.slice = refusal.slice;
        IF stage = 'cutting' THEN
            message := format('slice %s is being moved to service %s (epoch %s): table %s is not written now', slice, service, at_epoch, on_table);
            hint := format('%s To go back without a controller: SELECT strangler.abort(%L, %s);', back, slice, at_epoch);
        ELSIF stage = 'returning' THEN
            message := format('slice %s is on its way back from service %s (epoch %s): table %s is not written now', slice, service, at_epoch, on_table);
            hint := format('%s To leave it at the service without a controller: SELECT strangler.abort(%L, %s);', back, slice, at_epoch);
        ELSIF stage = 'split' THEN
            message := format('slice %s is owned by service %s (epoch %s): table %s is written there', slice, service, at_epoch, on_table);
            hint := format('Send the write to the service; to go back, with everything it wrote: `strangler rollback %s`. `strangler status` shows who owns the slice.', slice);
        ELSIF stage = 'retired' THEN
            message := format('slice %s has left for service %s: table %s is written there', slice, service, on_table);
            hint := 'Send the write to the service; its move is final.';
        END IF;
    END IF;
EXCEPTION WHEN OTHERS THEN
    NULL;
END
$$;

-- What the triggers call, with the rights of the schema's owner: the writer has none here. Strangler's role is known by its
-- session, which no setting and no SET ROLE changes. Operators are spelled out, because the search_path here is the
-- writer's own.
DO $do$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION strangler.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS %L', format($body$
DECLARE
    message pg_catalog.text;
    hint pg_catalog.text;
BEGIN
    IF session_user OPERATOR(pg_catalog.=) %L::pg_catalog.name THEN
        IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    SELECT r.message, r.hint INTO message, hint
        FROM strangler.refusal(TG_ARGV[0], TG_ARGV[1], TG_ARGV[2], pg_catalog.concat(TG_TABLE_SCHEMA, '.', TG_TABLE_NAME)) r;
    RAISE EXCEPTION USING ERRCODE = 'STR01', MESSAGE = message, HINT = hint;
END
$body$, facts->>'role'));
END
$do$;

-- What strangler and people call. Each finds the slice's own function, which has the rights that this one lacks.
CREATE OR REPLACE FUNCTION strangler.gate_ask(slice text, deed text, epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regprocedure(format('strangler.%I(text, bigint)', 'gate_of_' || slice)) IS NULL THEN
        RAISE EXCEPTION 'slice % is not installed in this database', slice
            USING ERRCODE = 'STR04', HINT = 'Run `strangler install` with a plan that has it.';
    END IF;
    EXECUTE format('SELECT strangler.%I($1, $2)', 'gate_of_' || slice) USING deed, epoch;
END
$$;

CREATE OR REPLACE FUNCTION strangler.gate_make(slice text, epoch bigint) RETURNS void
LANGUAGE sql AS $$ SELECT strangler.gate_ask(slice, 'make', epoch) $$;

CREATE OR REPLACE FUNCTION strangler.gate_unmake(slice text) RETURNS void
LANGUAGE sql AS $$ SELECT strangler.gate_ask(slice, 'unmake', NULL) $$;

CREATE OR REPLACE FUNCTION strangler.gate_raise(slice text, epoch bigint) RETURNS void
LANGUAGE sql AS $$ SELECT strangler.gate_ask(slice, 'raise', epoch) $$;

CREATE OR REPLACE FUNCTION strangler.rehearse_gate(slice text) RETURNS void
LANGUAGE sql AS $$ SELECT strangler.gate_ask(slice, 'rehearse', NULL) $$;

CREATE OR REPLACE FUNCTION strangler.fence(slice text, epoch bigint) RETURNS void
LANGUAGE sql AS $$ SELECT strangler.gate_ask(slice, 'fence', epoch) $$;

CREATE OR REPLACE FUNCTION strangler.open(slice text, epoch bigint) RETURNS void
LANGUAGE sql AS $$ SELECT strangler.gate_ask(slice, 'open', epoch) $$;
