//! Real clients against a server with `ContextLayer`: curl, nghttp2's load generator, Chromium, and
//! sockets that do what no library does.
//!
//! The tests that start another program are ignored by default. `.ci/clients.sh` installs the
//! programs and runs all tests.

#![cfg(unix)]

mod browser;
mod curl;
mod load;
mod log;
mod programs;
mod site;
mod sockets;
