//! What bodies fail and panic with.

use std::fmt::{self, Display};

use errgroup::ContextError;

use crate::world::Id;

/// What an injected panic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boom {
    pub(crate) world: usize,
    pub(crate) id: Id,
}

/// The scenario's error: of one body, or of a context.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Own(Id),
    Context(ContextError),
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Own(id) => write!(f, "body {id} failed"),
            Fault::Context(error) => Display::fmt(error, f),
        }
    }
}

impl From<ContextError> for Fault {
    fn from(error: ContextError) -> Fault {
        Fault::Context(error)
    }
}
