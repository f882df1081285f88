-- Removes the role's rights in this database, and the role itself if no other database needs it.
DO $$
DECLARE
    us text := (current_setting('strangler.facts')::jsonb)->>'role';
    elsewhere text[];
    grant_again text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = us) THEN
        RETURN;
    END IF;
    IF us = current_user OR us = session_user THEN
        RAISE WARNING 'role % stays: you are connected as this role', us;
        RETURN;
    END IF;
    -- What strangler made is gone by now. What the role still owns is somebody else's, and DROP OWNED would drop it.
    IF EXISTS (SELECT FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
               WHERE r.rolname = us AND d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o'
                   AND d.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))) THEN
        RAISE WARNING 'role % stays, with its rights: it owns objects here, so it is not only strangler''s', us;
        RETURN;
    END IF;
    IF NOT pg_has_role(current_user, us, 'USAGE') THEN
        EXECUTE format('GRANT %I TO CURRENT_USER', us);
    END IF;
    -- DROP OWNED also revokes what was granted on other databases. Another plan may need that, so it is granted again.
    SELECT coalesce(array_agg(format('GRANT %s ON DATABASE %I TO %I', a.privilege_type, d.datname, us)), '{}') INTO elsewhere
        FROM pg_catalog.pg_database d, LATERAL aclexplode(d.datacl) a
        WHERE d.datname <> current_database() AND a.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = us);
    EXECUTE format('DROP OWNED BY %I', us);
    FOREACH grant_again IN ARRAY elsewhere LOOP
        EXECUTE grant_again;
    END LOOP;
    BEGIN
        EXECUTE format('DROP ROLE %I', us);
    EXCEPTION WHEN dependent_objects_still_exist OR object_in_use THEN
        RAISE WARNING 'role % stays: other databases of this server still use it', us;
    END;
END
$$;
