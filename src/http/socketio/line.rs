//! What waits for its turn, and is worked off by one task that is there for as long as there is anything. Knows no bound:
//! whatever waits has a place ([`Session::admit`](super::session::Session::admit)), which it keeps until it is answered.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

pub(super) struct Line<T>(Mutex<State<T>>);

struct State<T> {
    waiting: VecDeque<T>,
    /// Whether somebody works it off, or is about to.
    served: bool,
}

impl<T> Line<T> {
    /// An empty one, that nobody serves, or that somebody is to serve who comes later.
    pub(super) fn new(served: bool) -> Self {
        Self(Mutex::new(State {
            waiting: VecDeque::new(),
            served,
        }))
    }

    /// Adds one at the end. Gives whether the caller has to see that it is served.
    pub(super) fn add(&self, one: T) -> bool {
        let mut state = self.state();
        state.waiting.push_back(one);
        !std::mem::replace(&mut state.served, true)
    }

    pub(super) fn next(&self) -> Option<T> {
        self.state().waiting.pop_front()
    }

    /// Whether nothing waits: then nobody serves it from now on.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.state();
        state.served = !state.waiting.is_empty();
        if !state.served {
            // A burst leaves no memory behind.
            state.waiting = VecDeque::new();
        }
        !state.served
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_adds_to_a_line_that_nobody_serves_sees_to_it() {
        let line = Line::new(false);
        assert!(line.add(1));
        assert!(!line.add(2), "that was said already");
        assert_eq!(line.next(), Some(1));
        assert!(!line.leave(), "one waits");
        assert_eq!(line.next(), Some(2));
        assert!(!line.add(3), "it is served until that is left");
        assert_eq!((line.next(), line.next()), (Some(3), None));
        assert!(line.leave());
        assert!(line.add(4));
        assert!(!Line::new(true).add(5), "somebody is to come");
    }
}
