//! The place in the caller's code where a fan-out was made, and the names of its items.

use std::borrow::Cow;
use std::panic::Location;

use crate::scheduler::error::Label;
use crate::span::{Span, TaskSpan};

/// The name of a fan-out, the line that made it, and the span in which that line ran.
#[derive(Clone)]
pub(crate) struct CallSite {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) site: &'static Location<'static>,
    /// The span of the code that made the fan-out: the parent of the items' spans.
    pub(crate) span: Span,
}

impl CallSite {
    /// Returns the call site of the function that calls this one.
    #[track_caller]
    pub(crate) fn caller() -> CallSite {
        CallSite {
            name: None,
            site: Location::caller(),
            span: Span::current(),
        }
    }

    /// Makes the span in which an item runs.
    pub(crate) fn span_of(&self, number: usize) -> TaskSpan {
        self.span.item(self.name.as_ref(), number, self.site)
    }

    /// Returns the label of an item: `name[3]`, or `item 3` without a name.
    pub(crate) fn label_of(&self, number: usize) -> Label {
        let name = match &self.name {
            Some(name) => format!("{name}[{number}]"),
            None => format!("item {number}"),
        };
        self.label(name)
    }

    /// Returns a label for something that belongs to the fan-out and is not an item.
    pub(crate) fn label(&self, what: impl Into<Cow<'static, str>>) -> Label {
        Label {
            name: Some(what.into()),
            site: self.site,
        }
    }
}
