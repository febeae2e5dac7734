#![forbid(unsafe_code)]
//! errgroup
