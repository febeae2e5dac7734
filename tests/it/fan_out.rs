//! The tests of fan-outs, with one module per hazard.
//!
//! The name of a test says what it checks, in at most 60 characters.

// A test that is missing from the list of its `both_flavours!` is an unused function, and would
// never run. That is an error here, not only a warning.
#![deny(dead_code)]

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
mod fan_out_wakes;

// Shared with the other test binaries, each of which uses a part of them.
#[allow(dead_code, unused_imports, unused_macros)]
mod fan_out_support;
#[allow(dead_code, unused_imports, unused_macros)]
mod group_support;
#[allow(dead_code, unused_imports, unused_macros)]
mod support;
