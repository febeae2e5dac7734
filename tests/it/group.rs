//! The tests of groups and drains, and of their tasks on a runtime, with one module per hazard.
//!
//! The name of a test says what it checks, in at most 60 characters.

// A test that is missing from the list of its `both_flavours!` is an unused function, and would
// never run. That is an error here, not only a warning.
#![deny(dead_code)]

mod cancel_safety;
mod drain;
mod drain_plans;
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
mod group_progress;
mod group_reap;
mod group_reserve;
mod group_results;
mod group_scope;
mod group_spawner;
mod group_stack;
mod group_start;
mod group_stress;
mod group_track;
mod group_traits;
mod group_try_go;
mod group_wait_all;
#[cfg(feature = "inspect")]
mod inspect_programs;
#[cfg(feature = "inspect")]
mod inspect_record;
#[cfg(feature = "inspect")]
mod inspect_table;
#[cfg(feature = "inspect")]
mod inspect_tree;
#[cfg(feature = "inspect")]
mod inspect_warn;
mod runtime_fairness;
mod runtime_lifo_slot;

// Shared with the other test binaries, each of which uses a part of them.
#[allow(dead_code, unused_imports, unused_macros)]
mod fan_out_support;
#[allow(dead_code, unused_imports, unused_macros)]
mod group_support;
#[cfg(feature = "inspect")]
#[allow(dead_code, unused_imports, unused_macros)]
mod inspect_support;
#[allow(dead_code, unused_imports, unused_macros)]
mod support;
