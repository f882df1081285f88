-- How far each lane has been applied here. A lane writes its row in the same transaction as the rows it applies.
CREATE TABLE IF NOT EXISTS strangler.stream (
    slice text NOT NULL,
    direction text NOT NULL CHECK (direction IN ('forward', 'reverse')),
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
    mapping text,
    captured jsonb,
    filled jsonb,
    fenced bigint,
    opened bigint,
    foreign_writes jsonb,
    sink_columns jsonb,
    holder text,
    updated_at timestamptz DEFAULT clock_timestamp(),
    PRIMARY KEY (slice, direction)
);
ALTER TABLE strangler.stream ADD COLUMN IF NOT EXISTS fenced bigint, ADD COLUMN IF NOT EXISTS opened bigint,
    ADD COLUMN IF NOT EXISTS foreign_writes jsonb, ADD COLUMN IF NOT EXISTS sink_columns jsonb;

-- A random name that this database and the log of its changes share, so that it is found when one of the two was set back
-- to an earlier moment. The bridge renews it.
CREATE TABLE IF NOT EXISTS strangler.seal (
    plan text PRIMARY KEY,
    seal text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

DO $$
DECLARE
    us text := (current_setting('strangler.facts')::jsonb)->>'role';
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON strangler.stream TO %I', us);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON strangler.seal TO %I', us);
END
$$;
