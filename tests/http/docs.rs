//! The examples of the documentation that need an HTTP server or client, as doctests. The library
//! has no such dependencies, so it leaves them out of its own doctests.

#[doc = include_str!("../../docs/GUIDE.md")]
pub mod guide {}

#[doc = include_str!("../../docs/GO.md")]
pub mod go {}

#[doc = include_str!("../../src/tower/extractor.md")]
pub mod extractor {}

#[doc = include_str!("../../src/tower/propagate/clients.md")]
pub mod clients {}
