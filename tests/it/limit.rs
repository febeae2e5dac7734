//! The tests of a group's limit: who waits for a permit, and who lends one.
//!
//! CI runs them optimized, too (`.ci/optimized.sh`). The limit was once exceeded in optimized
//! programs only.
//!
//! The name of a test says what it checks, in at most 60 characters.

// A test that is missing from the list of its `both_flavours!` is an unused function, and would
// never run. That is an error here, not only a warning.
#![deny(dead_code)]

mod group_lending;
mod group_lending_faults;
mod group_lending_wakes;
mod group_limit;
mod group_programs;
mod group_reserve_lending;

// Shared with the other test binaries, each of which uses a part of them.
#[allow(dead_code, unused_imports, unused_macros)]
mod fan_out_support;
#[allow(dead_code, unused_imports, unused_macros)]
mod group_support;
#[allow(dead_code, unused_imports, unused_macros)]
mod support;
