-- The role that strangler connects as. It must be strangler's own and never the application's: the gates let it pass.
-- The password comes from the setting strangler.password. Without one the role gets none.
DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    us text := facts->>'role';
    secret text := current_setting('strangler.password', true);
    -- For the hint. If the script fails, a role that it created is gone again.
    statement text := 'ALTER ROLE %I REPLICATION';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = us) THEN
        statement := 'CREATE ROLE %I LOGIN REPLICATION';
        EXECUTE format('CREATE ROLE %I LOGIN', us);
        IF coalesce(secret, '') <> '' THEN
            EXECUTE format('ALTER ROLE %I PASSWORD %L', us, secret);
        END IF;
    END IF;
    -- A source is read through a replication session. A service is a source only while one of its slices has a way back.
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
    -- On Amazon's servers nobody may set REPLICATION. Membership in a role gives the same right.
    BEGIN
        IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication') THEN
            EXECUTE format('GRANT rds_replication TO %I', us);
            RETURN;
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
    IF facts->>'side' = 'service' THEN
        RAISE WARNING '% may not give role % REPLICATION: slices can be followed into this database, but not cut over', current_user, us
            USING HINT = format('Run as a superuser: ' || statement || ';', us);
    ELSE
        RAISE EXCEPTION '% may not give role % REPLICATION', current_user, us
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Run as a superuser: ' || statement || '; then run `strangler install` again.', us);
    END IF;
END
$$;

-- Lets the role see what other sessions do, for example which one blocks the first copy. Not every server allows this grant.
DO $$
DECLARE
    us text := (current_setting('strangler.facts')::jsonb)->>'role';
BEGIN
    EXECUTE format('GRANT pg_read_all_stats TO %I', us);
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'role % cannot see what other sessions do: `strangler doctor` will not name long transactions', us
        USING HINT = format('Run as a superuser: GRANT pg_read_all_stats TO %I;', us);
END
$$;
