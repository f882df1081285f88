-- Triggers and defaults of a table run with the rights of whoever writes it: a superuser writes into nobody else's.
DO $$
DECLARE
    other text;
BEGIN
    SELECT r.rolname INTO other FROM pg_catalog.pg_roles r WHERE NOT r.rolsuper AND r.rolname <> current_user AND r.oid IN (
        SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname = 'strangler'
        UNION SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.relnamespace = to_regnamespace('strangler')) LIMIT 1;
    IF other IS NOT NULL AND (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'schema strangler belongs to role %, which would get a superuser''s rights by it', other
            USING HINT = format('Run `strangler install` as %s, who made it; or have it taken away by `strangler uninstall` as %s first.', other, other);
    END IF;
END
$$;

-- The schema of everything that strangler keeps in this database, and what was installed here.
CREATE SCHEMA IF NOT EXISTS strangler;

CREATE TABLE IF NOT EXISTS strangler.installed (
    part text PRIMARY KEY,              -- `monolith`, or the service's name
    plan text NOT NULL,
    facts jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row for each slice that is followed. An applier locks it FOR SHARE and writes only while it is shut at
-- the applier's own epoch.
CREATE TABLE IF NOT EXISTS strangler.gate (
    slice text PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    is_shut boolean NOT NULL DEFAULT false
);

-- User triggers that are switched off while the gate is shut, and how they stood before.
CREATE TABLE IF NOT EXISTS strangler.skipped_trigger (
    slice text NOT NULL,
    on_table text NOT NULL,
    name text NOT NULL,
    was "char" NOT NULL,
    PRIMARY KEY (slice, on_table, name)
);

DO $$
DECLARE
    said jsonb := current_setting('strangler.facts')::jsonb;
    us text := said->>'role';
    other record;
BEGIN
    SELECT plan, part INTO other FROM strangler.installed WHERE plan <> said->>'plan' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'plan % is installed in this database already', other.plan
            USING HINT = 'Run `strangler uninstall` with that plan first, or give each plan a database of its own.';
    END IF;
    SELECT plan, part INTO other FROM strangler.installed
        WHERE (part = 'monolith') <> (said->>'side' = 'monolith') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'this database is installed as % already, and now shall be %', other.part, said->>'part'
            USING HINT = 'Give the service a database of its own; it may stand on the same server.';
    END IF;
    -- The gates know one role. Changing it would shut the old one out while its bridge still runs.
    SELECT i.facts->>'role' AS role INTO other FROM strangler.installed i WHERE i.facts->>'role' <> us LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'this database is installed for role % already, and now shall be for %', other.role, us
            USING HINT = 'Use that role in the plan''s URL, or run `strangler uninstall` with the old URL first.';
    END IF;
    -- For a later step: which tables the slices had until now.
    PERFORM set_config('strangler.facts_before', coalesce(
        (SELECT i.facts::text FROM strangler.installed i WHERE i.part = said->>'part'), '{}'), true);
    INSERT INTO strangler.installed (part, plan, facts) VALUES (said->>'part', said->>'plan', said)
        ON CONFLICT (part) DO UPDATE SET facts = excluded.facts, at = excluded.at;

    REVOKE ALL ON SCHEMA strangler FROM PUBLIC;
    EXECUTE format('GRANT USAGE ON SCHEMA strangler TO %I', us);
    EXECUTE format('GRANT SELECT ON strangler.installed TO %I', us);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON strangler.gate, strangler.skipped_trigger TO %I', us);
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), us);
END
$$;
