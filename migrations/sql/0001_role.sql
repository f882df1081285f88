-- The role that strangler works by. It must be strangler's own and never the application's: the gates let it pass.
-- The password comes from the setting strangler.password; without one the role gets none.
DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    us text := facts->>'role';
    secret text := current_setting('strangler.password', true);
    -- What is made here goes again if the script fails.
    statement text := 'ALTER ROLE %I REPLICATION';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = us) THEN
        statement := 'CREATE ROLE %I LOGIN REPLICATION';
        EXECUTE format('CREATE ROLE %I LOGIN', us);
        IF coalesce(secret, '') <> '' THEN
            EXECUTE format('ALTER ROLE %I PASSWORD %L', us, secret);
        END IF;
    END IF;
    -- A source is read through a replication session. A service is one only while a slice of it has a way back.
    IF NOT (facts->>'is_source')::boolean
        OR EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = us AND (rolreplication OR rolsuper)) THEN
        RETURN;
    END IF;
    BEGIN
        EXECUTE format('ALTER ROLE %I REPLICATION', us);
        RETURN;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
    -- Amazon's servers have no REPLICATION attribute to give away, but a role that stands for it.
    BEGIN
        IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication') THEN
            EXECUTE format('GRANT rds_replication TO %I', us);
            RETURN;
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
    IF facts->>'side' = 'service' THEN
        RAISE WARNING 'role % may not be given REPLICATION by %: slices can be followed here, but not cut over', us, current_user
            USING HINT = format('Run as a superuser: ' || statement || ';', us);
    ELSE
        RAISE EXCEPTION 'role % may not be given REPLICATION by %', us, current_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Run as a superuser: ' || statement || '; then run `strangler install` again.', us);
    END IF;
END
$$;

-- Sees what other sessions do (who blocks the first copy), where the server lets us give that right.
DO $$
DECLARE
    us text := (current_setting('strangler.facts')::jsonb)->>'role';
BEGIN
    EXECUTE format('GRANT pg_read_all_stats TO %I', us);
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'role % cannot see what other sessions do; `strangler doctor` will not name long transactions', us;
END
$$;
