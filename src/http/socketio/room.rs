//! What is known of the room in a socket's buffer. The library counts packets, tells nobody when they are taken, and closes
//! a socket whose buffer has no room for a ping. So nothing is sent on trial: the connection says when its socket has taken
//! all that was to be sent, a request of polling when it has been answered, and in between a little may be sent.

use socketioxide::{SendError, SocketError};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// What may be sent between two times that all was taken: packets, and bytes unless it is one packet. What was sent before
/// the last of them may still be under way, so the buffer has twice as much at most.
pub(super) const PACKETS_MAX: usize = 7;
const BYTES_MAX: usize = 64 << 10; // 64 KiB

/// Where nobody tells what was taken (in a program that serves the routes itself), so much is sent in each such time.
const TICK: Duration = Duration::from_millis(25);

/// In a drain nobody waits longer for room.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// The room in one socket's buffer.
pub(super) struct Room {
    /// How often all was taken.
    taken: watch::Sender<u64>,
    /// Whether somebody tells so.
    told: bool,
    sent: Mutex<Sent>,
    drain: CancellationToken,
}

/// What was sent since all was taken for the so-manieth time.
#[derive(Default)]
struct Sent {
    since: u64,
    packets: usize,
    bytes: usize,
}

/// Why a packet was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// There was no room in time.
    Full,
    /// The socket is gone.
    Gone,
}

impl Room {
    pub(super) fn new(told: bool, drain: CancellationToken) -> Self {
        Self {
            taken: watch::Sender::new(0),
            told,
            sent: Mutex::default(),
            drain,
        }
    }

    /// All that was to be sent was taken.
    pub(super) fn taken(&self) {
        self.taken.send_modify(|times| *times += 1);
    }

    /// Takes room for a packet of so many bytes, if there is any.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let mut sent = self.sent();
        let times = *self.taken.borrow();
        if sent.since != times {
            *sent = Sent {
                since: times,
                ..Sent::default()
            };
        }
        let fits = sent.packets < PACKETS_MAX && sent.bytes + bytes <= BYTES_MAX;
        if !fits && sent.packets > 0 {
            return false;
        }
        sent.packets += 1;
        sent.bytes += bytes;
        true
    }

    /// Waits until all was taken that was sent so far.
    ///
    /// # Errors
    ///
    /// [`Unsent::Full`] if nothing was for so long.
    pub(super) async fn settle(&self, patience: Duration) -> Result<(), Unsent> {
        let waits = {
            let sent = self.sent();
            sent.packets > 0 && sent.since == *self.taken.borrow()
        };
        match waits {
            true => self.wait(patience).await,
            false => Ok(()),
        }
    }

    /// Whether somebody tells what was taken.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// The buffer is full all the same: others use it, too.
    fn set_full(&self) {
        self.sent().packets = PACKETS_MAX;
    }

    /// Waits until something was taken.
    ///
    /// # Errors
    ///
    /// [`Unsent::Full`] if nothing was for so long.
    pub(super) async fn wait(&self, patience: Duration) -> Result<(), Unsent> {
        let mut taken = self.taken.subscribe();
        let since = self.sent().since;
        let more = async {
            while *taken.borrow_and_update() == since {
                if self.told {
                    // The sender is this room's own.
                    let _ = taken.changed().await;
                } else if timeout(TICK, taken.changed()).await.is_err() {
                    self.taken();
                }
            }
        };
        let draining = async {
            self.drain.cancelled().await;
            sleep(DRAIN_PATIENCE).await;
        };
        tokio::select! {
            biased;
            () = more => Ok(()),
            () = sleep(patience) => Err(Unsent::Full),
            () = draining => Err(Unsent::Full),
        }
    }

    /// Sends a packet of so many bytes as soon as there is room.
    ///
    /// # Errors
    ///
    /// [`Unsent::Full`] if nothing was taken for so long, or what `send` says.
    ///
    /// # Cancel safety
    ///
    /// Once it was sent, this does not wait.
    pub(super) async fn send(
        &self,
        bytes: usize,
        patience: Duration,
        mut send: impl FnMut() -> Result<(), Unsent>,
    ) -> Result<(), Unsent> {
        loop {
            if self.take(bytes) {
                match send() {
                    Err(Unsent::Full) => self.set_full(),
                    sent => return sent,
                }
            }
            self.wait(patience).await?;
        }
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the library says of a packet that it was given.
pub(super) fn sent(result: Result<(), SendError>) -> Result<(), Unsent> {
    result.map_err(|error| match error {
        SendError::Socket(SocketError::InternalChannelFull) => Unsent::Full,
        SendError::Socket(_) | SendError::Serialize(_) => Unsent::Gone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(9);

    fn count(room: &Room, bytes: usize) -> usize {
        (0..100).take_while(|_| room.take(bytes)).count()
    }

    #[tokio::test]
    async fn so_much_may_be_sent_until_all_was_taken() {
        let room = Room::new(true, CancellationToken::new());
        assert_eq!(count(&room, 10), PACKETS_MAX);
        room.taken();
        assert_eq!(room.wait(PATIENCE).await, Ok(()));
        assert_eq!(count(&room, BYTES_MAX / 4), 4);
        room.taken();
        room.taken();
        assert_eq!(count(&room, BYTES_MAX * 2), 1, "one packet may be larger");
        assert_eq!(count(&room, 0), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_patience_and_soon_in_a_drain() {
        let (drain, begun) = (CancellationToken::new(), tokio::time::Instant::now());
        let room = Room::new(true, drain.clone());
        count(&room, 1);
        assert_eq!(room.wait(PATIENCE).await, Err(Unsent::Full));
        assert_eq!(begun.elapsed(), PATIENCE);
        drain.cancel();
        assert_eq!(room.wait(PATIENCE).await, Err(Unsent::Full));
        assert_eq!(begun.elapsed(), PATIENCE + DRAIN_PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_tells_the_time_does() {
        let (room, begun) = (
            Room::new(false, CancellationToken::new()),
            tokio::time::Instant::now(),
        );
        let mut sent = 0;
        for _ in 0..3 * PACKETS_MAX {
            let send = || {
                sent += 1;
                Ok(())
            };
            assert_eq!(room.send(1, PATIENCE, send).await, Ok(()));
        }
        assert_eq!((sent, begun.elapsed()), (3 * PACKETS_MAX, 2 * TICK));
    }
}
