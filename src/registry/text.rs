//! The texts of user code that are kept: bounded in length, and written without a panic.

use std::fmt::{self, Display, Write};

use crate::panic;

/// The most bytes of a text that are kept.
const MOST: usize = 500;
/// Ends a text of which more was not kept.
const CUT: char = '…';

/// Writes what is kept of an error, of a panic or of a cause, with its sources. The `Display` of a
/// user may fail or panic.
pub(crate) fn text(of: &dyn Display) -> Box<str> {
    let mut text = Bounded {
        text: String::new(),
        is_cut: false,
    };
    match panic::catch(|| write!(text, "{of:#}")) {
        Ok(Err(fmt::Error)) if !text.is_cut => "displaying it failed".into(),
        Ok(_) => text.text.into_boxed_str(),
        Err(payload) => {
            panic::discard(payload);
            "displaying it panicked".into()
        }
    }
}

/// A text that ends at a length of which a recorder can keep many.
struct Bounded {
    text: String,
    is_cut: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.is_cut {
            return Err(fmt::Error);
        }
        let mut end = more.len().min(MOST.saturating_sub(self.text.len()));
        while !more.is_char_boundary(end) {
            end -= 1;
        }
        self.text.push_str(&more[..end]);
        if end == more.len() {
            return Ok(());
        }
        self.text.push(CUT);
        self.is_cut = true;
        Err(fmt::Error)
    }
}
