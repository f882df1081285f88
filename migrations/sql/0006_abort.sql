-- How a cutover, its preparation or a rollback is given up with every process of ours dead. Only the monolith's database has it.

-- Writes what `Event::CutoverAborted` or `Event::RollbackAborted` would: the entry, and the head as `SliceState::after` has it. A
-- null epoch asks for what nobody drives any more; nothing comes back where there is none. Such a rollback, if it was due by
-- itself, is tried again as `migrations::cutover::stay` has it; one that a person gave up is not. Called through 0007_slices.sql, which
-- lends the right to write the journal to exactly this.
CREATE OR REPLACE FUNCTION strangler.journal_abort(of_slice text, at_epoch bigint, OUT raised bigint, OUT was text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head strangler.slice;
    is_crossing boolean;
    why text;
    again jsonb := '{}';
    who text := concat(session_user, '@' || host(inet_client_addr()));
BEGIN
    -- The order of locks is everywhere: the head, the journal, the gate, the tables.
    SELECT * INTO head FROM strangler.slice s WHERE s.slice = of_slice FOR UPDATE;
    was := coalesce(head.stage->>'stage', 'monolith');
    is_crossing := was IN ('cutting', 'returning')
        OR was = 'following' AND (head.preparing IS NOT NULL OR head.hold IS NOT NULL);
    IF at_epoch IS NULL THEN
        IF NOT is_crossing OR head.lease_until > clock_timestamp() THEN
            RETURN;
        END IF;
        why := format('the lease of coordinator %s has run out', coalesce(head.coordinator, 'nobody'));
        IF was = 'returning' AND head.stage ? 'returns_at' THEN
            again := jsonb_build_object('returns_at', greatest(
                (head.stage->>'returns_at')::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 10000));
        END IF;
    ELSIF NOT is_crossing OR head.epoch <> at_epoch THEN
        RAISE EXCEPTION 'nothing of slice % is under way at epoch %: it is % at epoch %', of_slice, at_epoch, was, coalesce(head.epoch, 0)
            USING ERRCODE = 'STR02', HINT = CASE
                WHEN is_crossing THEN format('Abort what is: SELECT strangler.abort(%L, %s);', of_slice, head.epoch)
                WHEN was = 'split' THEN format('The service owns it: `strangler rollback %s` gives it back.', of_slice)
                ELSE 'Read `strangler journal`.' END;
    ELSE
        why := format('strangler.abort() was called by %s', session_user);
    END IF;
    raised := head.epoch + 1;

    -- Another slice's entry may take the place: it is waited for, and the next place tried.
    LOOP
        INSERT INTO strangler.journal AS j (generation, actor, slice, event)
            SELECT coalesce(max(l.generation), 0) + 1, who, of_slice, jsonb_build_object(
                'event', CASE was WHEN 'returning' THEN 'rollback-aborted' ELSE 'cutover-aborted' END, 'epoch', raised, 'why', why) || again
            FROM strangler.journal l
            ON CONFLICT (generation) DO NOTHING
            RETURNING j.generation INTO head.generation;
        EXIT WHEN FOUND;
    END LOOP;
    UPDATE strangler.slice s SET
        epoch = raised,
        generation = head.generation,
        preparing = NULL,
        stage = CASE was
            WHEN 'cutting' THEN jsonb_build_object('stage', 'following', 'copied_at', head.stage->'copied_at')
            WHEN 'returning' THEN head.stage - 'returns_at' || '{"stage": "split"}' || again
            ELSE head.stage END,
        hold = CASE was WHEN 'returning' THEN head.hold || jsonb_build_object('epoch', raised) END,
        coordinator = CASE was WHEN 'returning' THEN head.coordinator END,
        lease_until = CASE was WHEN 'returning' THEN head.lease_until END
        WHERE s.slice = of_slice;
END
$$;

-- Gives up, and opens the monolith's gate where the monolith owns the tables again.
CREATE OR REPLACE FUNCTION strangler.abort_work(what jsonb, at_epoch bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    named text := what->>'slice';
    raised bigint;
    was text;
BEGIN
    EXECUTE format('SELECT a.raised, a.was FROM strangler.%I($1) a', 'entry_of_' || named) INTO raised, was USING at_epoch;
    IF raised IS NULL THEN
        RETURN NULL;
    ELSIF was <> 'returning' THEN
        PERFORM strangler.gate_try(what, 'open', raised);
        RAISE NOTICE 'slice % is the monolith''s (epoch %)', named, raised;
        RETURN raised;
    END IF;
    -- An applier may hold the gate's row; it is as welcome as before, and raises the gate itself when it goes on.
    UPDATE strangler.gate g SET epoch = greatest(g.epoch, raised) WHERE g.slice IN (
        SELECT l.slice FROM strangler.gate l WHERE l.slice = named FOR UPDATE SKIP LOCKED);
    RAISE NOTICE 'slice % is service %''s (epoch %); its gate there is opened by the controller, or by strangler''s role in that database: SELECT strangler.open(%, %);',
        named, what->>'service', raised, quote_literal(named), raised;
    RETURN raised;
END
$$;

CREATE OR REPLACE FUNCTION strangler.abort_ask(slice text, epoch bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    raised bigint;
BEGIN
    IF to_regprocedure(format('strangler.%I(bigint)', 'abort_of_' || slice)) IS NULL THEN
        RAISE EXCEPTION 'slice % is not installed in this database', slice
            USING ERRCODE = 'STR04', HINT = 'Run `strangler install` with a plan that has it.';
    END IF;
    EXECUTE format('SELECT strangler.%I($1)', 'abort_of_' || slice) INTO raised USING epoch;
    RETURN raised;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'slice % is being decided about in another session', slice
        USING ERRCODE = 'STR05', HINT = 'Nothing was changed: ask again. A session that is stuck stands in pg_stat_activity.';
END
$$;

CREATE OR REPLACE FUNCTION strangler.abort(slice text, epoch bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF epoch IS NULL THEN
        RAISE EXCEPTION 'which epoch of slice % is to be aborted?', slice
            USING ERRCODE = 'null_value_not_allowed', HINT = format('Ask for it: SELECT epoch, stage FROM strangler.head(%L);', slice);
    END IF;
    RETURN strangler.abort_ask(slice, epoch);
END
$$;

CREATE OR REPLACE FUNCTION strangler.abort_expired(slice text) RETURNS bigint
LANGUAGE sql AS $$ SELECT strangler.abort_ask(slice, NULL) $$;
