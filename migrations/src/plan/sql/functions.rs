//! Functions and words that a column's expression cannot use, by name. Functions of the user's own are not known here:
//! `doctor` tries the expressions on live rows.

/// Functions whose answer depends on the clock, on chance, on the session, on files or on other rows, be it by a query
/// in a text (PostgreSQL manual, chapter 9: those marked volatile or stable).
const UNSTEADY: &str = "clock_timestamp currval current_database current_query current_schemas current_setting \
    cursor_to_xml cursor_to_xmlschema database_to_xml dblink dblink_exec gen_random_bytes gen_random_uuid gen_salt inet_client_addr inet_client_port inet_server_addr lastval \
    nextval now pg_backend_pid pg_current_snapshot pg_current_wal_insert_lsn pg_current_wal_lsn \
    pg_current_xact_id pg_ls_dir pg_notify pg_read_binary_file pg_read_file pg_sleep pg_sleep_for pg_sleep_until \
    pg_stat_file query_to_xml query_to_xml_and_xmlschema query_to_xmlschema random random_normal schema_to_xml set_config setseed setval statement_timestamp \
    table_to_xml table_to_xml_and_xmlschema table_to_xmlschema timeofday transaction_timestamp txid_current txid_current_snapshot uuid_generate_v1 uuid_generate_v1mc \
    uuid_generate_v4 uuidv4 uuidv7 version";

/// Of the same kind, and called without parentheses (PostgreSQL manual, 9.9.5 and 9.27.1).
const UNSTEADY_WORDS: &str = "current_catalog current_date current_role current_schema current_time \
    current_timestamp current_user localtime localtimestamp session_user system_user user";

/// Functions over many rows, or giving many (PostgreSQL manual, 9.21, 9.22 and 9.26).
const MANY_ROWS: &str = "any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop \
    covar_samp cume_dist dense_rank every first_value generate_series generate_subscripts json_agg \
    json_array_elements json_array_elements_text json_each json_each_text json_object_agg jsonb_agg \
    jsonb_array_elements jsonb_array_elements_text jsonb_each jsonb_each_text jsonb_object_agg lag last_value \
    lead max min mode nth_value ntile percent_rank percentile_cont percentile_disc range_agg rank \
    regexp_matches regexp_split_to_table row_number stddev stddev_pop stddev_samp string_agg string_to_table \
    sum unnest var_pop var_samp variance xmlagg";

/// Whether a call of this function may answer differently for the same row.
pub(super) fn is_unsteady(name: &str) -> bool {
    is_one_of(name, UNSTEADY) || is_unsteady_word(name)
}

/// Whether the bare word is such a call.
pub(super) fn is_unsteady_word(name: &str) -> bool {
    is_one_of(name, UNSTEADY_WORDS)
}

/// Whether the function reads or gives more than one row.
pub(super) fn speaks_of_many_rows(name: &str) -> bool {
    is_one_of(name, MANY_ROWS)
}

/// `'now'` is the clock in disguise, alone or with a time of the day, in an array or a range (PostgreSQL manual,
/// 8.5.1.4). A literal gets its type from whatever stands around it, so a cast is not waited for.
pub(super) fn is_moment(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let mut words = text
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | '{' | '}' | '[' | ']' | '(' | ')' | '"'))
        .filter(|word| !word.is_empty());
    let names_a_day = |word: &&str| matches!(*word, "now" | "today" | "tomorrow" | "yesterday");
    let is_of_a_time = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-')) || word == "allballs"
    };
    let mut has_day = false;
    words.all(|word| {
        has_day |= names_a_day(&word);
        names_a_day(&word) || is_of_a_time(word)
    }) && has_day
}

fn is_one_of(name: &str, words: &str) -> bool {
    words.split_whitespace().any(|word| word == name)
}
