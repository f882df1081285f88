-- What strangler may do to each slice's tables here: three functions with the tables baked in, by the right of the
-- tables' owner, callable by strangler's role alone.
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
    lists record;
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
        EXECUTE format('GRANT EXECUTE ON FUNCTION strangler.relations(regclass[]), strangler.refuse(), '
                       'strangler.gate_cover(text, text, text, text[]), strangler.gate_turn(text, boolean, text[]), '
                       'strangler.gate_skip(text, boolean, text[], text[]), strangler.gate_leave(text, text[]) TO %I', owner);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON strangler.gate, strangler.skipped_trigger TO %I', owner);
        FOR made IN
            SELECT 'gate_make_' || (slice->>'slice') AS name, '' AS args, '500ms' AS patience, format($f$
BEGIN
    PERFORM strangler.gate_cover(%1$L, %2$L, 'moved', %3$L);
    PERFORM strangler.gate_cover(%1$L, %2$L, 'reference', %4$L);
    INSERT INTO strangler.gate (slice) VALUES (%1$L) ON CONFLICT (slice) DO NOTHING;
END
$f$, slice->>'slice', slice->>'service', lists.moved, CASE WHEN facts->>'side' = 'monolith' THEN '{}' ELSE lists.reference END) AS body
            UNION ALL
            -- Opening stalls no admitted writer and must not starve; shutting stalls those who come while it waits.
            -- A copy of a reference table stays shut when the slice's own tables open: the monolith still owns it.
            SELECT 'gate_set_' || (slice->>'slice'), 'shut boolean, epoch bigint', '100ms', format($f$
DECLARE
    current bigint;
BEGIN
    IF NOT $1 THEN
        PERFORM set_config('lock_timeout', '5s', true);
    END IF;
    SELECT g.epoch INTO current FROM strangler.gate g WHERE g.slice = %1$L FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'slice %% has no gate in this database', %1$L
            USING ERRCODE = 'STR04', HINT = 'Run `strangler sync start`, which makes it.';
    END IF;
    IF $2 < current THEN
        RAISE EXCEPTION 'epoch %% of slice %% is stale: its gate has seen epoch %%', $2, %1$L, current
            USING ERRCODE = 'STR02', HINT = 'Someone decided after you: read `strangler journal` and ask again.';
    END IF;
    PERFORM strangler.gate_cover(%1$L, %2$L, 'moved', %3$L);
    PERFORM strangler.gate_cover(%1$L, %2$L, 'reference', %4$L);
    PERFORM strangler.gate_turn(%1$L, $1, %3$L);
    IF $1 THEN
        PERFORM strangler.gate_turn(%1$L, true, %4$L);
    END IF;
    PERFORM strangler.gate_skip(%1$L, $1, %5$L, %6$L);
    UPDATE strangler.gate g SET epoch = $2, is_shut = $1 WHERE g.slice = %1$L;
END
$f$, slice->>'slice', slice->>'service', lists.moved, CASE WHEN facts->>'side' = 'monolith' THEN '{}' ELSE lists.reference END,
                lists.skip, named)
            UNION ALL
            SELECT 'gate_unmake_' || (slice->>'slice'), '', '500ms', format($f$
BEGIN
    DELETE FROM strangler.gate g WHERE g.slice = %1$L;
    PERFORM strangler.gate_skip(%1$L, false, '{}', '{}');
    PERFORM strangler.gate_leave(%1$L, '{}');
END
$f$, slice->>'slice')
        LOOP
            EXECUTE format('CREATE OR REPLACE FUNCTION strangler.%I(%s) RETURNS void LANGUAGE plpgsql SECURITY DEFINER '
                           'SET search_path = pg_catalog, pg_temp SET lock_timeout = %L AS %L',
                           made.name, made.args, made.patience, made.body);
            EXECUTE format('ALTER FUNCTION strangler.%I(%s) OWNER TO %I', made.name, made.args, owner);
            EXECUTE format('REVOKE ALL ON FUNCTION strangler.%I(%s) FROM PUBLIC, %I', made.name, made.args, owner);
            EXECUTE format('GRANT EXECUTE ON FUNCTION strangler.%I(%s) TO %I', made.name, made.args, us);
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

-- Slices that left the plan take their functions with them, unless their gate still stands.
DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    one record;
BEGIN
    FOR one IN
        SELECT p.oid::regprocedure AS signature, substring(p.proname FROM '^gate_(?:make|set|unmake)_(.*)$') AS slice
        FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'strangler'::regnamespace AND p.proname ~ '^gate_(make|set|unmake)_'
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
