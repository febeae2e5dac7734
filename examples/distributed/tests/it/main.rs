//! The program from outside: real processes on loopback, and what becomes of their items. Each test
//! asserts counts; times are printed.
//!
//! That no process is left is seen by a pipe: all that a test starts share one standard error, and
//! its end comes when the last has exited.

mod client;
mod end;
mod job;
mod lost;
mod process;
