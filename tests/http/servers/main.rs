//! The layers next to hyper, axum, reqwest and tower-http, over loopback.

#[allow(dead_code)] // shared with tests/it, which uses more of it
#[path = "../../it/support.rs"]
mod support;
#[allow(dead_code)] // as above
#[path = "../../it/tower_support.rs"]
mod tower_support;

mod axum_extractor;
mod go_programs;
mod tower_order;
mod tower_servers;
