//! The integration tests: one binary, with one module per hazard.
//!
//! The name of a test says what it checks, in at most 60 characters.

// A test that is missing from the list of its `both_flavours!` is an unused function, and would
// never run. That is an error here, not only a warning.
#![deny(dead_code)]

mod cancel_safety;
mod context_after_func;
mod context_budget;
mod context_cancel;
mod context_chains;
mod context_deadline;
mod context_display;
mod context_done;
mod context_errors;
mod context_find;
mod context_interrupt;
mod context_io;
mod context_merge;
mod context_model;
mod context_reentrancy;
mod context_run;
#[cfg(feature = "tokio-util")]
mod context_token;
mod context_tree;
mod context_values;
mod drain;
mod drain_plans;
mod fan_out_blocking;
mod fan_out_blocking_explorer;
mod fan_out_budget;
mod fan_out_burst;
mod fan_out_consumer;
mod fan_out_deadline;
mod fan_out_destructors;
mod fan_out_ends;
mod fan_out_explorer;
mod fan_out_fetch_all;
mod fan_out_few;
mod fan_out_laws;
mod fan_out_limit;
mod fan_out_losers;
mod fan_out_model;
mod fan_out_nested;
mod fan_out_panic;
mod fan_out_progress;
mod fan_out_pull;
mod fan_out_send;
mod fan_out_stop;
mod fan_out_support;
mod fan_out_wakes;
mod group_abort;
mod group_blocking;
mod group_budget;
mod group_causes;
mod group_close;
mod group_drop;
mod group_explorer;
mod group_first_error;
mod group_grace;
mod group_handle;
mod group_hazards;
mod group_lending;
mod group_lending_faults;
mod group_limit;
mod group_local;
mod group_mix;
mod group_model;
mod group_named;
mod group_never_started;
mod group_new;
mod group_options;
mod group_order;
mod group_outside_runtime;
mod group_panic;
mod group_programs;
mod group_progress;
mod group_reap;
mod group_reserve;
mod group_reserve_lending;
mod group_results;
mod group_scope;
mod group_spawner;
mod group_stack;
mod group_start;
mod group_stress;
mod group_support;
mod group_track;
mod group_traits;
mod group_try_go;
mod group_wait_all;
#[cfg(feature = "inspect")]
mod inspect_programs;
#[cfg(feature = "inspect")]
mod inspect_tree;
#[cfg(feature = "inspect")]
mod inspect_warn;
mod runtime_fairness;
mod runtime_lifo_slot;
mod support;
#[cfg(feature = "tower")]
mod tower_body;
#[cfg(feature = "tower")]
mod tower_context;
#[cfg(feature = "tower")]
mod tower_deadline;
#[cfg(feature = "tower")]
mod tower_drain;
#[cfg(feature = "tower")]
mod tower_dropping;
#[cfg(feature = "tower")]
mod tower_hazards;
#[cfg(feature = "tower")]
mod tower_header;
#[cfg(feature = "tower")]
mod tower_lingering;
#[cfg(feature = "tower")]
mod tower_propagate;
#[cfg(feature = "tower")]
mod tower_support;
#[cfg(feature = "tower")]
mod tower_uploads;
#[cfg(feature = "tracing")]
mod tracing_spans;
