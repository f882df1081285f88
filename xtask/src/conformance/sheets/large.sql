-- Columns that `large_required` lacks make Debezium's connector fail where they are NOT NULL.
CREATE TABLE large (id int PRIMARY KEY, note text,
    t text,
    vc varchar,
    bytes bytea,
    j json,
    jb jsonb,
    x xml,
    a_text text[],
    a_vc varchar[],
    a_int int[],
    a_big bigint[],
    a_uuid uuid[],
    a_date date[],
    a_num numeric(10,2)[],
    a_bool boolean[],
    a_bytes bytea[],
    n numeric,
    bits bit varying,
    words tsvector,
    way path);
ALTER TABLE large ALTER t SET STORAGE EXTERNAL, ALTER vc SET STORAGE EXTERNAL, ALTER bytes SET STORAGE EXTERNAL, ALTER j SET STORAGE EXTERNAL, ALTER jb SET STORAGE EXTERNAL, ALTER x SET STORAGE EXTERNAL, ALTER a_text SET STORAGE EXTERNAL, ALTER a_vc SET STORAGE EXTERNAL, ALTER a_int SET STORAGE EXTERNAL, ALTER a_big SET STORAGE EXTERNAL, ALTER a_uuid SET STORAGE EXTERNAL, ALTER a_date SET STORAGE EXTERNAL, ALTER a_num SET STORAGE EXTERNAL, ALTER a_bool SET STORAGE EXTERNAL, ALTER a_bytes SET STORAGE EXTERNAL, ALTER n SET STORAGE EXTERNAL, ALTER bits SET STORAGE EXTERNAL, ALTER words SET STORAGE EXTERNAL, ALTER way SET STORAGE EXTERNAL;
CREATE TABLE large_full (id int PRIMARY KEY, note text,
    t text,
    vc varchar,
    bytes bytea,
    j json,
    jb jsonb,
    x xml,
    a_text text[],
    a_vc varchar[],
    a_int int[],
    a_big bigint[],
    a_uuid uuid[],
    a_date date[],
    a_num numeric(10,2)[],
    a_bool boolean[],
    a_bytes bytea[],
    n numeric,
    bits bit varying,
    words tsvector,
    way path);
ALTER TABLE large_full ALTER t SET STORAGE EXTERNAL, ALTER vc SET STORAGE EXTERNAL, ALTER bytes SET STORAGE EXTERNAL, ALTER j SET STORAGE EXTERNAL, ALTER jb SET STORAGE EXTERNAL, ALTER x SET STORAGE EXTERNAL, ALTER a_text SET STORAGE EXTERNAL, ALTER a_vc SET STORAGE EXTERNAL, ALTER a_int SET STORAGE EXTERNAL, ALTER a_big SET STORAGE EXTERNAL, ALTER a_uuid SET STORAGE EXTERNAL, ALTER a_date SET STORAGE EXTERNAL, ALTER a_num SET STORAGE EXTERNAL, ALTER a_bool SET STORAGE EXTERNAL, ALTER a_bytes SET STORAGE EXTERNAL, ALTER n SET STORAGE EXTERNAL, ALTER bits SET STORAGE EXTERNAL, ALTER words SET STORAGE EXTERNAL, ALTER way SET STORAGE EXTERNAL;
ALTER TABLE large_full REPLICA IDENTITY FULL;
CREATE TABLE large_required (id int PRIMARY KEY, note text,
    t text NOT NULL,
    vc varchar NOT NULL,
    bytes bytea NOT NULL,
    j json NOT NULL,
    jb jsonb NOT NULL,
    x xml NOT NULL,
    a_text text[] NOT NULL,
    a_vc varchar[] NOT NULL,
    a_int int[] NOT NULL,
    a_big bigint[] NOT NULL,
    a_uuid uuid[] NOT NULL,
    a_date date[] NOT NULL);
ALTER TABLE large_required ALTER t SET STORAGE EXTERNAL, ALTER vc SET STORAGE EXTERNAL, ALTER bytes SET STORAGE EXTERNAL, ALTER j SET STORAGE EXTERNAL, ALTER jb SET STORAGE EXTERNAL, ALTER x SET STORAGE EXTERNAL, ALTER a_text SET STORAGE EXTERNAL, ALTER a_vc SET STORAGE EXTERNAL, ALTER a_int SET STORAGE EXTERNAL, ALTER a_big SET STORAGE EXTERNAL, ALTER a_uuid SET STORAGE EXTERNAL, ALTER a_date SET STORAGE EXTERNAL;

-- operations
INSERT INTO large VALUES (1, 'a',
    repeat('text ', 3000),
    repeat('varchar ', 2000),
    decode(repeat('0badcafe', 3000), 'hex'),
    ('{"a": "' || repeat('json ', 3000) || '"}')::json,
    ('{"a": "' || repeat('jsonb ', 3000) || '"}')::jsonb,
    ('<a>' || repeat('xml ', 3000) || '</a>')::xml,
    array_fill('some text'::text, ARRAY[2000]),
    array_fill('some text'::varchar, ARRAY[2000]),
    array_fill(7, ARRAY[4000]),
    array_fill(7::bigint, ARRAY[3000]),
    array_fill('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, ARRAY[1500]),
    array_fill('2020-01-02'::date, ARRAY[4000]),
    array_fill(1.5::numeric(10,2), ARRAY[2000]),
    array_fill(true, ARRAY[9000]),
    array_fill('\x0102'::bytea, ARRAY[2000]),
    (repeat('9', 12000))::numeric,
    repeat('10', 30000)::bit varying,
    (SELECT string_agg('w' || g, ' ') FROM generate_series(1, 2000) g)::tsvector,
    ('[' || repeat('(0,1),', 800) || '(0,0)]')::path);
UPDATE large SET note = 'b';
UPDATE large SET id = 2;
UPDATE large SET t = t || '!', note = NULL;
UPDATE large SET id = 3, note = 'c';
DELETE FROM large;
INSERT INTO large_full VALUES (1, 'a',
    repeat('text ', 3000),
    repeat('varchar ', 2000),
    decode(repeat('0badcafe', 3000), 'hex'),
    ('{"a": "' || repeat('json ', 3000) || '"}')::json,
    ('{"a": "' || repeat('jsonb ', 3000) || '"}')::jsonb,
    ('<a>' || repeat('xml ', 3000) || '</a>')::xml,
    array_fill('some text'::text, ARRAY[2000]),
    array_fill('some text'::varchar, ARRAY[2000]),
    array_fill(7, ARRAY[4000]),
    array_fill(7::bigint, ARRAY[3000]),
    array_fill('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, ARRAY[1500]),
    array_fill('2020-01-02'::date, ARRAY[4000]),
    array_fill(1.5::numeric(10,2), ARRAY[2000]),
    array_fill(true, ARRAY[9000]),
    array_fill('\x0102'::bytea, ARRAY[2000]),
    (repeat('9', 12000))::numeric,
    repeat('10', 30000)::bit varying,
    (SELECT string_agg('w' || g, ' ') FROM generate_series(1, 2000) g)::tsvector,
    ('[' || repeat('(0,1),', 800) || '(0,0)]')::path);
UPDATE large_full SET note = 'b';
UPDATE large_full SET id = 2;
UPDATE large_full SET t = t || '!', note = NULL;
UPDATE large_full SET id = 3, note = 'c';
DELETE FROM large_full;
INSERT INTO large_required VALUES (1, 'a',
    repeat('text ', 3000),
    repeat('varchar ', 2000),
    decode(repeat('0badcafe', 3000), 'hex'),
    ('{"a": "' || repeat('json ', 3000) || '"}')::json,
    ('{"a": "' || repeat('jsonb ', 3000) || '"}')::jsonb,
    ('<a>' || repeat('xml ', 3000) || '</a>')::xml,
    array_fill('some text'::text, ARRAY[2000]),
    array_fill('some text'::varchar, ARRAY[2000]),
    array_fill(7, ARRAY[4000]),
    array_fill(7::bigint, ARRAY[3000]),
    array_fill('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, ARRAY[1500]),
    array_fill('2020-01-02'::date, ARRAY[4000]));
UPDATE large_required SET note = 'b';
UPDATE large_required SET id = 2;
UPDATE large_required SET t = t || '!', note = NULL;
UPDATE large_required SET id = 3, note = 'c';
DELETE FROM large_required;
