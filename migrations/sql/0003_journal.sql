-- The journal of what was decided (append-only) and the head it folds to, per slice. Only the monolith's database has them.
CREATE TABLE IF NOT EXISTS strangler.journal_id (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO strangler.journal_id DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS strangler.journal (
    generation bigint PRIMARY KEY CHECK (generation > 0),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    reason text NOT NULL DEFAULT '',
    slice text NOT NULL,
    event jsonb NOT NULL
);

CREATE TABLE IF NOT EXISTS strangler.slice (
    slice text PRIMARY KEY,
    stage jsonb NOT NULL,
    epoch bigint NOT NULL,
    generation bigint NOT NULL,
    preparing jsonb,
    hold jsonb,
    -- Who drives a cutover or rollback, until when, by this database's clock. It picks one; only epochs give safety.
    coordinator text,
    lease_until timestamptz
);

-- Where a slice stands, which nobody changes until the transaction's end. The gates' functions ask it by this function's
-- rights: whoever owns an application's tables must not write the head.
CREATE OR REPLACE FUNCTION strangler.head(of_slice text, OUT stage text, OUT epoch bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.stage->>'stage', s.epoch FROM strangler.slice s WHERE s.slice = of_slice FOR SHARE
$$;

CREATE OR REPLACE FUNCTION strangler.journal_is_append_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the journal only grows: % is refused', TG_OP
        USING ERRCODE = 'STR03', HINT = 'Decide anew instead; `strangler journal` shows what was decided.';
END
$$;

DO $$
DECLARE
    us text := (current_setting('strangler.facts')::jsonb)->>'role';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger
                   WHERE tgrelid = 'strangler.journal'::regclass AND tgname = 'append_only') THEN
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON strangler.journal
            FOR EACH STATEMENT EXECUTE FUNCTION strangler.journal_is_append_only();
        ALTER TABLE strangler.journal ENABLE ALWAYS TRIGGER append_only;
    END IF;
    EXECUTE format('GRANT SELECT ON strangler.journal_id TO %I', us);
    EXECUTE format('GRANT SELECT, INSERT ON strangler.journal TO %I', us);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON strangler.slice TO %I', us);
END
$$;
