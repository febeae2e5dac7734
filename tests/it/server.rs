//! The tests of the layers for servers and clients, and of spans, with one module per hazard.
//!
//! The name of a test says what it checks, in at most 60 characters.

// A test that is missing from the list of its `both_flavours!` is an unused function, and would
// never run. That is an error here, not only a warning.
#![deny(dead_code)]

#[cfg(all(feature = "inspect", feature = "tower"))]
mod inspect_handlers;
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
