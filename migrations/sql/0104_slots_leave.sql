-- Drops the slots, last of all: this cannot be rolled back if a later step fails.
DO $$
DECLARE
    facts jsonb := current_setting('strangler.facts')::jsonb;
BEGIN
    PERFORM pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
        WHERE slot_name ~ (facts->>'slots') AND NOT active AND database = current_database();
END
$$;
