#!/bin/sh
# Writes the *.bin files beside it anew: pgoutput messages of a real server, one file for each file in cases.
# A file holds, for each message, its WAL position (8 bytes), its length (4 bytes), and the message.
# Needs Postgres 15 in /usr/lib/postgresql/15/bin, and to be run as a user that may run a server (not root).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=/usr/lib/postgresql/15/bin
work=$(mktemp -d)
trap '"$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
"$bin/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null
"$bin/pg_ctl" -D "$work/data" -w -o "-k $work -c listen_addresses= -c wal_level=logical" start >/dev/null
sql() { "$bin/psql" -h "$work" -U postgres -X -q -At -v ON_ERROR_STOP=1 "$@"; }
sql -f "$here/setup.sql"
for case in "$here"/cases/*.sql; do
    name=$(basename "$case" .sql)
    sql -c "SELECT pg_create_logical_replication_slot('captured', 'pgoutput')" >/dev/null
    sql -f "$case" >/dev/null
    sql -c "SET timezone = 'UTC'" -c "SET extra_float_digits = 1" -c "
        SELECT encode(string_agg(int8send((lsn - '0/0')::bigint) || int4send(length(data)) || data, '' ORDER BY n), 'hex')
          FROM pg_logical_slot_peek_binary_changes('captured', NULL, NULL, 'proto_version', '1',
               'publication_names', 'all_tables', 'messages', 'true') WITH ORDINALITY AS m (lsn, xid, data, n)" |
        perl -ne 'chomp; print pack("H*", $_)' >"${OUT:-$here}/$name.bin"
    sql -c "SELECT pg_drop_replication_slot('captured')" >/dev/null
done
