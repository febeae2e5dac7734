//! Builds the examples and runs them as processes: what they print, how they react to signals, and
//! their exit status. `cargo test` does not run it, since it compiles the members with their
//! servers and databases.
//!
//! ```sh
//! cargo test --test examples
//! cargo test --test examples -- graceful
//! ```
#![cfg(unix)]

mod inspect;
mod messages;
mod processes;
mod programs;
mod servers;
mod shutdown;
mod support;
