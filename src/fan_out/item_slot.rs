//! Where the worker of one item keeps the item's future: in its own task, or in a box if that is
//! cheaper.
//!
//! tokio copies a task several times when it is spawned and when it ends, whether a future is in it
//! or not. For a large future that costs more than a box.

use std::pin::Pin;

use pin_project_lite::pin_project;

/// The size in bytes above which the future of an item is in a box. A box of this size costs about
/// as much as the copies.
const INLINE: usize = 512;

/// Returns whether the future of an item is in a box.
///
/// Ask in an `if const`: the compiler then compiles one of the two workers for each type.
pub(super) const fn is_boxed<F>() -> bool {
    size_of::<F>() > INLINE
}

/// The place for a future.
pub(super) trait ItemSlot<F> {
    fn empty() -> Self;
    fn get(self: Pin<&mut Self>) -> Pin<&mut Option<F>>;
}

pin_project! {
    /// The future is in the task.
    pub(super) struct Inline<F> {
        #[pin]
        item: Option<F>,
    }
}

/// The future is in a box, which is made when it is needed.
pub(super) struct Boxed<F>(Option<Pin<Box<Option<F>>>>);

impl<F> ItemSlot<F> for Inline<F> {
    fn empty() -> Self {
        Inline { item: None }
    }

    fn get(self: Pin<&mut Self>) -> Pin<&mut Option<F>> {
        self.project().item
    }
}

impl<F> ItemSlot<F> for Boxed<F> {
    fn empty() -> Self {
        Boxed(None)
    }

    fn get(self: Pin<&mut Self>) -> Pin<&mut Option<F>> {
        let item = &mut self.get_mut().0;
        item.get_or_insert_with(|| Box::pin(None)).as_mut()
    }
}
