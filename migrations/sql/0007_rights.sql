-- What strangler's role may do with the plan's tables: read them in the monolith, write them in a service. Rights on
-- tables that left the plan are taken back.
DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    us text := facts->>'role';
    rights text := CASE facts->>'side' WHEN 'monolith' THEN 'SELECT' ELSE 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE' END;
    named regclass[];
    one record;
BEGIN
    SELECT coalesce(array_agg(DISTINCT format('%I.%I', t->>'schema', t->>'name')::regclass), '{}') INTO named
        FROM strangler.installed i, jsonb_array_elements(i.facts->'slices') s,
             LATERAL jsonb_array_elements((s->'moved') || (s->'reference')) t;

    FOR one IN
        SELECT c.oid::regclass AS rel
        FROM pg_catalog.pg_class c, LATERAL aclexplode(c.relacl) a
        WHERE a.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = us) AND c.relkind IN ('r', 'p')
            AND c.relnamespace <> 'strangler'::regnamespace
            AND NOT EXISTS (SELECT FROM strangler.relations(named) r WHERE r.rel = c.oid)
        GROUP BY c.oid
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE %s FROM %I', one.rel, us);
    END LOOP;

    FOR one IN
        SELECT r.rel, c.relnamespace::regnamespace AS schema FROM strangler.relations(named) r JOIN pg_catalog.pg_class c ON c.oid = r.rel
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO %I', one.schema, us);
        EXECUTE format('GRANT %s ON TABLE %s TO %I', rights, one.rel, us);
    END LOOP;

    FOR one IN
        SELECT DISTINCT d.objid::regclass AS rel
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S'
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
            AND d.refobjid = ANY (named::oid[]) AND d.deptype IN ('a', 'i')
    LOOP
        EXECUTE format('GRANT %s ON SEQUENCE %s TO %I',
                       CASE facts->>'side' WHEN 'monolith' THEN 'SELECT' ELSE 'USAGE, SELECT, UPDATE' END, one.rel, us);
    END LOOP;
END
$$;
