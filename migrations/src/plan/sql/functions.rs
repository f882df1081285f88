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

/// Functions over many rows (PostgreSQL manual, 9.21 and 9.22).
const OVER_ROWS: &str = "any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop \
    covar_samp cume_dist dense_rank every first_value json_agg json_agg_strict json_arrayagg json_object_agg \
    json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict json_objectagg jsonb_agg \
    jsonb_agg_strict jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique \
    jsonb_object_agg_unique_strict lag last_value lead max min mode nth_value ntile percent_rank \
    percentile_cont percentile_disc range_agg range_intersect_agg rank regr_avgx regr_avgy regr_count \
    regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy row_number stddev stddev_pop stddev_samp \
    string_agg sum var_pop var_samp variance xmlagg";

/// Functions that give any number of rows, none included: those of `pg_catalog` that return a set. A test of the
/// controller asks its server for them.
const GIVING_ROWS: &str = "aclexplode generate_series generate_subscripts json_array_elements \
    json_array_elements_text json_each json_each_text json_object_keys json_populate_recordset \
    json_to_recordset jsonb_array_elements jsonb_array_elements_text jsonb_each jsonb_each_text \
    jsonb_object_keys jsonb_path_query jsonb_path_query_tz jsonb_populate_recordset jsonb_to_recordset \
    pg_available_extension_versions pg_available_extensions pg_available_wal_summaries pg_config pg_cursor \
    pg_event_trigger_ddl_commands pg_event_trigger_dropped_objects pg_extension_update_paths pg_get_aios \
    pg_get_backend_memory_contexts pg_get_catalog_foreign_keys pg_get_keywords pg_get_loaded_modules \
    pg_get_multixact_members pg_get_publication_tables pg_get_replication_slots pg_get_shmem_allocations \
    pg_get_shmem_allocations_numa pg_get_wait_events pg_get_wal_resource_managers pg_hba_file_rules \
    pg_ident_file_mappings pg_listening_channels pg_lock_status pg_logical_slot_get_binary_changes \
    pg_logical_slot_get_changes pg_logical_slot_peek_binary_changes pg_logical_slot_peek_changes \
    pg_ls_archive_statusdir pg_ls_dir pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir \
    pg_ls_summariesdir pg_ls_tmpdir pg_ls_waldir pg_mcv_list_items pg_options_to_table pg_partition_ancestors \
    pg_partition_tree pg_prepared_statement pg_prepared_xact pg_show_all_file_settings pg_show_all_settings \
    pg_show_replication_origin_status pg_snapshot_xip pg_stat_get_activity pg_stat_get_backend_idset \
    pg_stat_get_backend_io pg_stat_get_io pg_stat_get_progress_info pg_stat_get_recovery_prefetch \
    pg_stat_get_slru pg_stat_get_subscription pg_stat_get_wal_senders pg_tablespace_databases \
    pg_timezone_abbrevs pg_timezone_abbrevs_zone pg_timezone_names pg_wal_summary_contents regexp_matches \
    regexp_split_to_table string_to_table ts_debug ts_parse ts_stat ts_token_type txid_snapshot_xip unnest";

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
    is_one_of(name, OVER_ROWS) || is_one_of(name, GIVING_ROWS)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_give_no_row_or_many_are_known() {
        for name in ["jsonb_object_keys", "json_object_keys", "jsonb_path_query", "ts_parse", "unnest"] {
            assert!(speaks_of_many_rows(name), "{name}");
        }
        for name in ["jsonb_path_query_first", "jsonb_path_query_array", "regexp_match", "string_to_array"] {
            assert!(!speaks_of_many_rows(name), "{name}");
        }
    }
}
