//! Values that have gone and are used again in place of new ones.

use std::cell::RefCell;

/// Spare values of a thread, at most so many.
pub(crate) struct Spares<T> {
    kept: RefCell<Vec<T>>,
    max: usize,
}

impl<T> Spares<T> {
    /// None yet, and at most `max`. More are made when more are in use at once, and freed
    /// afterwards.
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            kept: RefCell::new(Vec::new()),
            max,
        }
    }

    /// One of them; `None`: a new one has to be made.
    #[inline]
    pub(crate) fn take(&self) -> Option<T> {
        self.kept.borrow_mut().pop()
    }

    /// Keeps one that nobody needs any more, as empty as a new one.
    #[inline]
    pub(crate) fn keep(&self, value: T) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < self.max {
            kept.push(value);
        }
    }

    /// Frees what is kept.
    pub(crate) fn drop_all(&self) {
        self.kept.take();
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.kept.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_may_be() {
        let spares = Spares::new(2);
        assert_eq!(spares.take(), None);
        (0..4).for_each(|value| spares.keep(value));
        assert_eq!((spares.take(), spares.count()), (Some(1), 1));
        spares.drop_all();
        assert_eq!(spares.kept.borrow().capacity(), 0);
    }
}
