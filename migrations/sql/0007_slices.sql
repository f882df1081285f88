-- What may be done to each slice's tables here: functions with the tables baked in, by the right of the tables' owner.
-- Strangler's role alone calls them; giving up may be called by the tables' owner, too.
DO $do$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    us text := facts->>'role';
    slice jsonb;
    named text[];
    gated text[];
    missing text[];
    owners text[];
    owner text;
    made record;
    function text;
    lists record;
    what jsonb;
    helper text;
    -- What those functions call in their turn. None has a right of its own but `head`, which only reads.
    helpers text[] := ARRAY(
        SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'strangler'::regnamespace AND p.proname IN (
            'relations', 'refuse', 'head', 'gate_wait', 'gate_cover', 'gate_turn', 'gate_skip', 'gate_leave', 'gate_work',
            'gate_try', 'abort_work', 'abort_ask', 'abort', 'abort_expired'));
    slice_name text;
    stay text[];
    patience text;
BEGIN
    FOR slice IN SELECT jsonb_array_elements(facts->'slices') LOOP
        SELECT coalesce(array_agg(format('%I.%I', t->>'schema', t->>'name')) FILTER (WHERE kind = 'moved'), '{}') AS moved,
               coalesce(array_agg(format('%I.%I', t->>'schema', t->>'name')) FILTER (WHERE kind = 'reference'), '{}') AS reference,
               ARRAY(SELECT jsonb_array_elements_text(slice->'skip')) AS skip
            INTO lists
            FROM (SELECT 'moved' AS kind, jsonb_array_elements(slice->'moved') AS t
                  UNION ALL SELECT 'reference', jsonb_array_elements(slice->'reference')) AS tables;
        named := lists.moved || lists.reference;
        SELECT array_agg(t) INTO missing FROM unnest(named) AS t
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = to_regclass(t) AND c.relkind IN ('r', 'p'));
        IF missing IS NOT NULL THEN
            RAISE EXCEPTION 'database % has no table %', current_database(), array_to_string(missing, ', ')
                USING ERRCODE = 'undefined_table',
                      HINT = format('Make it there or correct slice %s of the plan, then run `strangler install` again.', slice->>'slice');
        END IF;

        -- In the monolith reference tables are never gated, so who owns them does not matter.
        gated := CASE WHEN facts->>'side' = 'monolith' AND lists.moved <> '{}' THEN lists.moved ELSE named END;
        SELECT array_agg(DISTINCT pg_get_userbyid(c.relowner)::text) INTO owners
            FROM strangler.relations(gated::regclass[]) AS r
            JOIN pg_catalog.pg_class c ON c.oid = r.rel;
        owner := owners[1];
        IF cardinality(owners) > 1 AND (facts->>'side' <> 'monolith' OR lists.moved <> '{}') THEN
            RAISE EXCEPTION 'the tables of slice % have several owners: %', slice->>'slice', array_to_string(owners, ', ')
                -- Partitions are named too: a new owner of the table above does not become theirs.
                USING HINT = (SELECT 'Give them one, e.g. ' || string_agg(format('ALTER TABLE %s OWNER TO %I;', r.rel, owner), ' ')
                              FROM strangler.relations(gated::regclass[]) AS r JOIN pg_catalog.pg_class c ON c.oid = r.rel
                              WHERE pg_get_userbyid(c.relowner) <> owner);
        END IF;
        IF us = ANY (owners) THEN
            RAISE EXCEPTION 'role % owns tables of slice %: the gate would let their application pass', us, slice->>'slice'
                USING HINT = 'Name a role of strangler''s own in the plan''s database URL; `strangler install` makes it.';
        END IF;

        EXECUTE format('GRANT USAGE, CREATE ON SCHEMA strangler TO %I', owner);
        -- Default privileges may give new functions to nobody.
        FOREACH helper IN ARRAY helpers LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', helper, owner);
        END LOOP;
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON strangler.gate, strangler.skipped_trigger TO %I', owner);
        what := jsonb_build_object(
            'slice', slice->>'slice', 'service', slice->>'service', 'side', facts->>'side', 'moved', to_jsonb(lists.moved),
            'reference', CASE WHEN facts->>'side' = 'monolith' THEN '[]' ELSE to_jsonb(lists.reference) END, 'skip', slice->'skip');
        FOR made IN
            SELECT 'gate_of_' AS name, 'deed text, epoch bigint' AS args, 'void' AS gives, owner AS maker, ARRAY[us] AS callers,
                   format('SELECT strangler.gate_try(%L, deed, epoch)', what) AS body
            -- The owner of the tables gets no right on the journal: he may call this, and through it write just this entry.
            UNION ALL
            SELECT 'entry_of_', 'epoch bigint, OUT raised bigint, OUT was text', 'record', current_user, ARRAY[owner],
                   format('SELECT * FROM strangler.journal_abort(%L, epoch)', slice->>'slice')
            WHERE facts->>'side' = 'monolith'
            UNION ALL
            SELECT 'abort_of_', 'epoch bigint', 'bigint', owner, ARRAY[us, owner],
                   format('SELECT strangler.abort_work(%L, epoch)', what)
            WHERE facts->>'side' = 'monolith'
        LOOP
            function := format('%I(%s)', made.name || (slice->>'slice'), made.args);
            -- One that its owner may not call could not be replaced by him.
            EXECUTE format('DROP FUNCTION IF EXISTS strangler.%s', function);
            EXECUTE format('CREATE FUNCTION strangler.%s RETURNS %s LANGUAGE sql SECURITY DEFINER '
                           'SET search_path = pg_catalog, pg_temp AS %L', function, made.gives, made.body);
            EXECUTE format('ALTER FUNCTION strangler.%s OWNER TO %I', function, made.maker);
            EXECUTE format('REVOKE ALL ON FUNCTION strangler.%s FROM PUBLIC, %I', function, owner);
            EXECUTE format('GRANT EXECUTE ON FUNCTION strangler.%s TO %s', function,
                           (SELECT string_agg(quote_ident(caller), ', ') FROM unnest(made.callers) caller));
        END LOOP;
        -- A table that left the slice is no longer its gate's to guard. Its readers are not held up for long.
        patience := current_setting('lock_timeout');
        PERFORM set_config('lock_timeout', '500ms', true);
        PERFORM strangler.gate_leave(slice->>'slice', gated);
        PERFORM set_config('lock_timeout', patience, true);
        -- Nor are its rows a copy's from now on: what the service writes there is its own.
        IF facts->>'side' = 'service' THEN
            slice_name := slice->>'slice';
            stay := ARRAY(SELECT (t->>'schema') || '.' || (t->>'name')
                          FROM jsonb_array_elements((slice->'moved') || (slice->'reference')) t);
            UPDATE strangler.stream s SET filled = (
                SELECT coalesce(jsonb_agg(f), '[]') FROM jsonb_array_elements_text(s.filled) f WHERE f = ANY (stay))
                WHERE s.slice = slice_name AND s.direction = 'forward' AND NOT s.filled <@ to_jsonb(stay);
        END IF;
        IF owner <> (SELECT pg_get_userbyid(nspowner)::text FROM pg_catalog.pg_namespace WHERE nspname = 'strangler') THEN
            EXECUTE format('REVOKE CREATE ON SCHEMA strangler FROM %I', owner);
        END IF;
    END LOOP;
END
$do$;

-- Strangler's role asks for all of it; nobody else is given anything.
DO $$
DECLARE
    us text := (current_setting('strangler.facts')::jsonb)->>'role';
    one record;
BEGIN
    FOR one IN
        SELECT p.oid::regprocedure AS signature, p.proname IN (
            'relations', 'head', 'gate_ask', 'gate_make', 'gate_unmake', 'gate_raise', 'rehearse_gate', 'fence', 'open', 'abort_ask',
            'abort', 'abort_expired') AS is_ours
        FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'strangler'::regnamespace
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', one.signature);
        IF one.is_ours THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', one.signature, us);
        END IF;
    END LOOP;
END
$$;

-- Slices that left the plan take their functions with them, unless their gate still stands.
DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    one record;
BEGIN
    FOR one IN
        SELECT p.oid::regprocedure AS signature, substring(p.proname FROM '^(?:gate|entry|abort|writers)_of_(.*)$') AS slice
        FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'strangler'::regnamespace AND p.proname ~ '^(gate|entry|abort|writers)_of_'
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM strangler.installed i, jsonb_array_elements(i.facts->'slices') s WHERE s->>'slice' = one.slice);
        IF EXISTS (SELECT FROM strangler.gate g WHERE g.slice = one.slice) THEN
            RAISE WARNING 'slice % left the plan while its gate still stands; put it back and run `strangler sync drop %`', one.slice, one.slice;
        ELSE
            EXECUTE format('DROP FUNCTION %s', one.signature);
        END IF;
    END LOOP;
END
$$;
