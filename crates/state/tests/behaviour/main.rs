//! What every store does, over a SQLite file, SQLite in memory and Postgres.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

mod cases;
mod outcomes;
mod places;
mod refusals;

/// Makes a test of each case over each place.
macro_rules! over {
    ($place:ident: $($case:ident),+ $(,)?) => {
        mod $place {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let Some(place) = crate::places::$place().await else { return };
                    place.run(|opener| Box::pin(crate::cases::$case(opener))).await;
                }
            )+
        }
    };
}

over!(sqlite_memory:
    a_value_is_what_was_last_put,
    a_deleted_key_is_gone_once,
    lists_are_ordered_by_bytes,
    texts_of_any_language_are_kept,
    spaces_are_found_by_prefix,
    limits_are_told,
    concurrent_puts_all_count,
    a_closed_store_says_so,
    an_exchange_is_done_only_if_nothing_has_changed,
    of_racing_exchanges_one_wins_each_round,
    the_last_keys_come_first,
    predictions_count_once,
    texts_of_predictions_are_kept,
    outcomes_are_joined_by_one_at_a_time,
    early_outcomes_wait_for_their_predictions,
    what_is_old_goes_and_what_was_counted_stays,
);

over!(sqlite_file:
    a_value_is_what_was_last_put,
    a_deleted_key_is_gone_once,
    lists_are_ordered_by_bytes,
    texts_of_any_language_are_kept,
    spaces_are_found_by_prefix,
    limits_are_told,
    concurrent_puts_all_count,
    a_closed_store_says_so,
    an_exchange_is_done_only_if_nothing_has_changed,
    of_racing_exchanges_one_wins_each_round,
    the_last_keys_come_first,
    records_survive_reopening,
    two_handles_see_each_other,
    two_handles_exchange_without_losing_any,
    many_may_open_a_new_store_at_once,
    a_newer_schema_is_refused,
    an_older_schema_is_brought_forward,
    predictions_count_once,
    texts_of_predictions_are_kept,
    outcomes_are_joined_by_one_at_a_time,
    early_outcomes_wait_for_their_predictions,
    what_is_old_goes_and_what_was_counted_stays,
    a_store_without_these_tables_gets_them,
);

over!(postgres:
    a_value_is_what_was_last_put,
    a_deleted_key_is_gone_once,
    lists_are_ordered_by_bytes,
    texts_of_any_language_are_kept,
    spaces_are_found_by_prefix,
    limits_are_told,
    concurrent_puts_all_count,
    a_closed_store_says_so,
    an_exchange_is_done_only_if_nothing_has_changed,
    of_racing_exchanges_one_wins_each_round,
    the_last_keys_come_first,
    records_survive_reopening,
    two_handles_see_each_other,
    two_handles_exchange_without_losing_any,
    many_may_open_a_new_store_at_once,
    a_newer_schema_is_refused,
    an_older_schema_is_brought_forward,
    predictions_count_once,
    texts_of_predictions_are_kept,
    outcomes_are_joined_by_one_at_a_time,
    early_outcomes_wait_for_their_predictions,
    what_is_old_goes_and_what_was_counted_stays,
    a_store_without_these_tables_gets_them,
);
