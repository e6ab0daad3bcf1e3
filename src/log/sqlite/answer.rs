//! How those who append hear of it: a whole group with one wake-up.
//!
//! To wake a task from the writer's thread takes a lock and often a system call, and each time the kernel may let the
//! woken thread go first. So the writer wakes one task, with the answers of all the others; these are given out where
//! that is dropped, which is on the task's thread, or on the writer's if the task is gone.

use crate::log::{AppendError, Outcome};
use tokio::sync::oneshot;

pub(super) type Appending = Result<Vec<Outcome>, AppendError>;

/// Where the answer to one append goes.
pub(super) struct Reply(oneshot::Sender<Answer>);

/// Where it comes from. Dropped unanswered, it is an error to wait for it.
pub(super) struct Answered(oneshot::Receiver<Answer>);

struct Answer {
    own: Appending,
    _others: Others,
}

struct Others(Vec<(Reply, Appending)>);

pub(super) fn reply() -> (Reply, Answered) {
    let (reply, answered) = oneshot::channel();
    (Reply(reply), Answered(answered))
}

/// Answers a group.
pub(super) fn answer(group: impl IntoIterator<Item = (Reply, Appending)>) {
    let mut group = group.into_iter();
    if let Some((first, own)) = group.next() {
        first.send(own, Others(group.collect()));
    }
}

impl Reply {
    fn send(self, own: Appending, others: Others) {
        let _others = others;
        // Who asked may be gone.
        let _ = self.0.send(Answer { own, _others });
    }
}

impl Answered {
    /// The answer, after which the others of its group have theirs.
    pub(super) async fn get(self) -> Appending {
        match self.0.await {
            Ok(answer) => answer.own,
            Err(_) => Err(AppendError::Unavailable),
        }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for (reply, own) in self.0.drain(..) {
            reply.send(own, Self(Vec::new()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_answered_whoever_is_gone() {
        let group = || -> (Vec<Reply>, Vec<Answered>) { (0..3).map(|_| reply()).unzip() };
        let full = || Err(AppendError::Full);

        let (replies, mut answered) = group();
        answered.remove(0);
        answer(replies.into_iter().map(|reply| (reply, full())));
        for answered in answered {
            assert_eq!(answered.get().await, full());
        }

        let (replies, mut answered) = group();
        answer(replies.into_iter().map(|reply| (reply, full())));
        // It was told, and does not look.
        answered.remove(0);
        for answered in answered {
            assert_eq!(answered.get().await, full());
        }

        let (replies, answered) = group();
        drop(replies);
        for answered in answered {
            assert_eq!(answered.get().await, Err(AppendError::Unavailable));
        }
    }
}
