-- How far each slice's stream has been applied here. It is written in the same transaction as the rows.
CREATE TABLE IF NOT EXISTS strangler.stream (
    slice text PRIMARY KEY,
    source text,
    log_id text,
    system_id text,
    timeline int,
    attempt bigint,
    copied_at pg_lsn,
    commit_lsn pg_lsn,
    ordinal bigint,
    passed pg_lsn,
    cursor jsonb,
    shapes jsonb,
    holder text,
    updated_at timestamptz DEFAULT clock_timestamp()
);
ALTER TABLE strangler.stream ADD COLUMN IF NOT EXISTS mapping text;
ALTER TABLE strangler.stream ADD COLUMN IF NOT EXISTS captured jsonb;
ALTER TABLE strangler.stream ADD COLUMN IF NOT EXISTS filled jsonb;

DO $$
DECLARE
    us text := (current_setting('strangler.facts')::jsonb)->>'role';
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON strangler.stream TO %I', us);
END
$$;
