//! The tests of contexts, with one module per hazard.
//!
//! The name of a test says what it checks, in at most 60 characters.

// A test that is missing from the list of its `both_flavours!` is an unused function, and would
// never run. That is an error here, not only a warning.
#![deny(dead_code)]

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

// Shared with the other test binaries, each of which uses a part of them.
#[allow(dead_code, unused_imports, unused_macros)]
mod fan_out_support;
#[allow(dead_code, unused_imports, unused_macros)]
mod group_support;
#[allow(dead_code, unused_imports, unused_macros)]
mod support;
#[cfg(feature = "tower")]
#[allow(dead_code)]
mod tower_support;
