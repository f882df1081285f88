-- Who writes the slices' tables: noted by triggers that are switched on for a while. Only the monolith's database has them.

-- Until when the writers of a slice are noted. A row that is over says that they were noted once.
CREATE TABLE IF NOT EXISTS strangler.writer_watch (
    slice text PRIMARY KEY,
    until timestamptz NOT NULL
);

-- What was noted. Nothing here is unique: no application's insert waits for another's.
CREATE TABLE IF NOT EXISTS strangler.writer (
    id bigint NOT NULL,                 -- a hash of what is told apart
    slice text NOT NULL,
    on_table text NOT NULL,             -- as the plan names it
    role text NOT NULL,
    application text NOT NULL,
    query text NOT NULL,                -- shortened, without literals
    seconds bigint NOT NULL DEFAULT 1,  -- in how many of them it wrote
    last timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS writer_id ON strangler.writer (id);

-- A statement without what differs from one call to the next. Literals may also be nobody's business.
CREATE OR REPLACE FUNCTION strangler.without_literals(query text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT left(l.query, 160) FROM (
        SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(left(without_literals.query, 4000),
            '''([^'']|'''')*(''|$)', '?', 'g'),
            '\$?\m[0-9]+(\.[0-9]+)?\M', '?', 'g'),
            '\s+', ' ', 'g'),
            '\?(, ?\?)+', '?', 'g'),
            '\(\?\)(, ?\(\?\))+', '(?)', 'g') AS query) l
$$;

-- What the triggers call, with the rights of the schema's owner. Whatever goes wrong here, the write goes on: it is nothing to
-- the application. So nothing here waits, and little is written: one row for each that is told apart, once a second, up to 4 MiB.
DO $do$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION strangler.note_writer() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
                   'SET search_path = pg_catalog, pg_temp AS %L', format($body$
DECLARE
    key bigint;
    seen timestamptz;
    told text;
    who text;
BEGIN
    IF session_user = %L OR NOT EXISTS (
        SELECT FROM strangler.writer_watch w WHERE w.slice = TG_ARGV[0] AND w.until > clock_timestamp()) THEN
        RETURN NULL;
    END IF;
    told := strangler.without_literals(current_query());
    who := left(current_setting('application_name'), 64);
    key := hashtextextended(concat_ws(chr(1), TG_ARGV[0], TG_ARGV[1], session_user, who, told), 0);
    IF current_setting('transaction_isolation') = 'serializable' THEN
        -- What is read here could make another such transaction fail. So nothing is read, and only some are noted.
        IF random() >= 0.05 THEN
            RETURN NULL;
        END IF;
    ELSE
        SELECT max(w.last) INTO seen FROM strangler.writer w WHERE w.id = key;
        IF seen > clock_timestamp() - interval '1 s' THEN
            RETURN NULL;
        END IF;
        -- Until this transaction's end, others like it write nothing here and need not wait. There are few such locks.
        IF NOT pg_try_advisory_xact_lock(1937011303, (key & 255)::int) THEN
            RETURN NULL;
        END IF;
    END IF;
    IF seen IS NOT NULL THEN
        UPDATE strangler.writer w SET seconds = w.seconds + 1, last = clock_timestamp()
            WHERE w.ctid = (SELECT l.ctid FROM strangler.writer l WHERE l.id = key LIMIT 1 FOR UPDATE SKIP LOCKED);
    ELSIF pg_relation_size('strangler.writer') < 4194304 THEN
        INSERT INTO strangler.writer (id, slice, on_table, role, application, query)
            VALUES (key, TG_ARGV[0], TG_ARGV[1], session_user, who, told);
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$body$, facts->>'role'));
END
$do$;

-- Makes the triggers that are missing and switches all of them. Takes no lock where all stand right.
CREATE OR REPLACE FUNCTION strangler.writers_work(slice text, roots text[], is_on boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    named text := 'strangler_writers_' || slice;
    deadline timestamptz := clock_timestamp() + interval '100ms';
    one record;
BEGIN
    FOR one IN
        SELECT root.name AS root, r.rel, t.tgenabled FROM unnest(roots) WITH ORDINALITY AS root (name, place)
        CROSS JOIN LATERAL strangler.relations(ARRAY[root.name]::regclass[]) WITH ORDINALITY AS r (rel, kind, is_root, place)
        LEFT JOIN pg_trigger t ON t.tgrelid = r.rel AND t.tgname = named
        ORDER BY root.place, r.place
    LOOP
        CONTINUE WHEN coalesce(one.tgenabled, 'D') = CASE WHEN is_on THEN 'A' ELSE 'D' END;
        PERFORM strangler.gate_wait(deadline);
        IF one.tgenabled IS NULL THEN
            EXECUTE format('CREATE TRIGGER %I BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT '
                           'EXECUTE FUNCTION strangler.note_writer(%L, %L)', named, one.rel, slice, one.root);
        END IF;
        EXECUTE format('ALTER TABLE ONLY %s %s TRIGGER %I',
                       one.rel, CASE WHEN is_on THEN 'ENABLE ALWAYS' ELSE 'DISABLE' END, named);
    END LOOP;
END
$$;

-- Notes who writes the slice's tables until then. When that time is over, the triggers note nothing, even if nobody switches
-- them off.
CREATE OR REPLACE FUNCTION strangler.watch_writers(slice text, until timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regprocedure(format('strangler.%I(boolean)', 'writers_of_' || slice)) IS NULL THEN
        RAISE EXCEPTION 'slice % is not installed in this database', slice
            USING ERRCODE = 'STR04', HINT = 'Run `strangler install` with a plan that has it.';
    END IF;
    INSERT INTO strangler.writer_watch AS w (slice, until) VALUES (watch_writers.slice, watch_writers.until)
        ON CONFLICT ON CONSTRAINT writer_watch_pkey DO UPDATE SET until = greatest(w.until, excluded.until);
    EXECUTE format('SELECT strangler.%I(true)', 'writers_of_' || slice);
END
$$;

-- Ends what was to last until then, unless somebody else asked for longer.
CREATE OR REPLACE FUNCTION strangler.unwatch_writers(slice text, until timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE strangler.writer_watch w SET until = least(w.until, clock_timestamp())
        WHERE w.slice = unwatch_writers.slice AND w.until <= unwatch_writers.until;
    IF FOUND THEN
        EXECUTE format('SELECT strangler.%I(false)', 'writers_of_' || slice);
    END IF;
END
$$;

-- The triggers are made and switched by the right of the tables' owner, which 0007_slices.sql found to be one.
DO $do$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    us text := facts->>'role';
    slice jsonb;
    roots text[];
    owner text;
    function text;
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON strangler.writer, strangler.writer_watch TO %I', us);
    REVOKE ALL ON FUNCTION strangler.note_writer(), strangler.without_literals(text), strangler.writers_work(text, text[], boolean),
        strangler.watch_writers(text, timestamptz), strangler.unwatch_writers(text, timestamptz) FROM PUBLIC;
    EXECUTE format('GRANT EXECUTE ON FUNCTION strangler.watch_writers(text, timestamptz), strangler.unwatch_writers(text, timestamptz) TO %I', us);
    FOR slice IN SELECT jsonb_array_elements(facts->'slices') LOOP
        roots := ARRAY(SELECT format('%I.%I', t->>'schema', t->>'name') FROM jsonb_array_elements(slice->'moved') t ORDER BY 1);
        CONTINUE WHEN roots = '{}';
        SELECT pg_get_userbyid(c.relowner)::text INTO owner FROM pg_catalog.pg_class c WHERE c.oid = roots[1]::regclass;
        EXECUTE format('GRANT USAGE, CREATE ON SCHEMA strangler TO %I', owner);
        EXECUTE format('GRANT EXECUTE ON FUNCTION strangler.note_writer(), strangler.writers_work(text, text[], boolean) TO %I', owner);
        function := format('%I(boolean)', 'writers_of_' || (slice->>'slice'));
        EXECUTE format('DROP FUNCTION IF EXISTS strangler.%s', function);
        EXECUTE format('CREATE FUNCTION strangler.%s RETURNS void LANGUAGE sql SECURITY DEFINER '
                       'SET search_path = pg_catalog, pg_temp AS %L', function,
                       format('SELECT strangler.writers_work(%L, %L, $1)', slice->>'slice', roots));
        EXECUTE format('ALTER FUNCTION strangler.%s OWNER TO %I', function, owner);
        EXECUTE format('REVOKE ALL ON FUNCTION strangler.%s FROM PUBLIC, %I', function, owner);
        EXECUTE format('GRANT EXECUTE ON FUNCTION strangler.%s TO %I', function, us);
        IF owner <> (SELECT pg_get_userbyid(nspowner)::text FROM pg_catalog.pg_namespace WHERE nspname = 'strangler') THEN
            EXECUTE format('REVOKE CREATE ON SCHEMA strangler FROM %I', owner);
        END IF;
    END LOOP;
END
$do$;
