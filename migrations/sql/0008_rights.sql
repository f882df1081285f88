-- What strangler's role may do with the plan's tables: read what it captures, write what it fills. In a service it fills
-- all tables. In the monolith it fills the tables that a rollback brings back, and these are never reference tables.
DO $$
DECLARE
    us text := (current_setting('strangler.facts')::jsonb)->>'role';
    one record;
BEGIN
    -- Revokes everything: a table may have left the plan, or lost its way back. The rest is granted again below.
    FOR one IN
        SELECT c.oid::regclass AS rel, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
        FROM pg_catalog.pg_class c, LATERAL aclexplode(c.relacl) a
        WHERE a.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = us) AND c.relkind IN ('r', 'p', 'S')
            AND c.relnamespace <> 'strangler'::regnamespace
        GROUP BY c.oid, c.relkind
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %I', one.kind, one.rel, us);
    END LOOP;

    FOR one IN
        WITH named AS (
            SELECT format('%I.%I', t->>'schema', t->>'name')::regclass AS root,
                   bool_or(i.part <> 'monolith' OR kind = 'moved' AND i.facts->'returns' ? (s->>'slice')) AS is_filled
            FROM strangler.installed i, jsonb_array_elements(i.facts->'slices') s, unnest(ARRAY['moved', 'reference']) kind,
                 LATERAL jsonb_array_elements(s->kind) t
            GROUP BY 1
        ), relations AS (
            SELECT r.rel, n.is_filled, 'TABLE' AS kind FROM named n, strangler.relations(ARRAY[n.root]) r
            UNION
            SELECT d.objid::regclass, n.is_filled, 'SEQUENCE'
            FROM named n JOIN pg_catalog.pg_depend d ON d.refobjid = n.root AND d.deptype IN ('a', 'i')
                AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
            JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S'
        )
        SELECT r.*, c.relnamespace::regnamespace AS schema FROM relations r JOIN pg_catalog.pg_class c ON c.oid = r.rel
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO %I', one.schema, us);
        EXECUTE format('GRANT %s ON %s %s TO %I',
                       CASE WHEN NOT one.is_filled THEN 'SELECT'
                            WHEN one.kind = 'TABLE' THEN 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE'
                            ELSE 'USAGE, SELECT, UPDATE' END, one.kind, one.rel, us);
    END LOOP;
END
$$;
