-- Whether strangler may be removed here: not while a service owns a slice's tables, and not while a slot is read.
DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
    one record;
BEGIN
    IF to_regclass('strangler.slice') IS NOT NULL THEN
        FOR one IN EXECUTE $q$SELECT slice, stage->>'stage' AS stage FROM strangler.slice
                              WHERE stage->>'stage' IN ('cutting', 'split', 'returning')$q$ LOOP
            RAISE EXCEPTION 'slice % is %: without its gate the monolith could write tables that it does not own', one.slice, one.stage
                USING HINT = 'Uninstall when no slice is cutting, split or returning; `strangler status` shows the stages.';
        END LOOP;
    END IF;
    FOR one IN SELECT slot_name, active_pid FROM pg_catalog.pg_replication_slots
               WHERE slot_name ~ (facts->>'slots') AND active AND database = current_database() LOOP
        RAISE EXCEPTION 'replication slot % is read by process %', one.slot_name, one.active_pid
            USING HINT = 'Stop the bridge with `strangler down`, then run `strangler uninstall` again.';
    END LOOP;
END
$$;
