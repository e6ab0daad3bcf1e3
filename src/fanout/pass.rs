//! The pass clock: when a feed's next frame may go out.

use tokio::time::Instant;

/// How many passes lie between two frames. Below 1.3 publishers find no time to come in between, above 2 readers wait
/// for nothing.
const PASSES: f64 = 1.5;

/// Paces the frames of one feed.
///
/// A *pass* is the time from sending a frame until its last reader has written it. The law: **a frame goes out at
/// once if at least [`PASSES`] passes have gone by since the last one; else events gather until then.** While a pass
/// is under way its length is not known, and it is waited for.
///
/// So a feed at rest adds no delay. A busy one spends most of its time writing, and the pause after the pass lets its
/// publishers in, whose events then share one write. A fixed pause would be too long for few readers and too
/// short for many.
///
/// Each reader that is sent a frame owes a token, which it gives back when it has written the frame *or has fallen
/// behind*, so that a slow reader holds up nobody. Tokens of an earlier pass count for nothing.
#[derive(Debug, Default)]
pub(super) struct PassClock {
    /// Number of the pass that was begun last.
    pass: u64,
    /// Tokens that are out.
    owed: usize,
    sent: Option<Instant>,
    /// When the next frame may go out, once the pass is over.
    next: Option<Instant>,
}

/// When a frame may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Now,
    At(Instant),
    /// When the pass under way is over.
    AfterPass,
}

impl PassClock {
    /// When the next frame may go out.
    pub(super) fn when(&self, now: Instant) -> When {
        match (self.owed, self.next) {
            (0, Some(next)) if next > now => When::At(next),
            (0, _) => When::Now,
            _ => When::AfterPass,
        }
    }

    /// A frame was sent to so many readers: a pass begins. Gives its number, which is each reader's token.
    pub(super) fn sent(&mut self, now: Instant, readers: usize) -> u64 {
        self.pass += 1;
        self.owed = readers;
        self.sent = Some(now);
        self.next = None;
        self.pass
    }

    /// The token of a reader that comes now: it owes none of a later pass.
    pub(super) fn token(&self) -> u64 {
        self.pass
    }

    /// A reader gives a token back. Gives whether that ended the pass. `now` is asked for only then.
    pub(super) fn give_back(&mut self, token: u64, now: impl FnOnce() -> Instant) -> bool {
        if token != self.pass || self.owed == 0 {
            return false;
        }
        self.owed -= 1;
        if self.owed > 0 {
            return false;
        }
        self.next = self
            .sent
            .map(|sent| sent + now().duration_since(sent).mul_f64(PASSES));
        true
    }

    /// A reader goes whose last token was this one. Gives whether that ended the pass.
    pub(super) fn leave(&mut self, last: u64, now: impl FnOnce() -> Instant) -> bool {
        // One that has not even received the frame under way owes its token all the same.
        last < self.pass && self.give_back(self.pass, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// How long after a frame the next one may follow, if its pass took so long.
    fn pause(pass: Duration) -> Duration {
        pass.mul_f64(PASSES)
    }

    const MS: Duration = Duration::from_millis(1);

    /// Sends to so many readers, of which each takes so long; gives when the last was done.
    fn pass(clock: &mut PassClock, at: Instant, readers: u32, each: Duration) -> Instant {
        let token = clock.sent(at, readers as usize);
        for reader in 1..=readers {
            let over = clock.give_back(token, || at + each * reader);
            assert_eq!(over, reader == readers);
        }
        at + each * readers
    }

    #[test]
    fn an_idle_feed_waits_for_nothing() {
        let (mut clock, now) = (PassClock::default(), Instant::now());
        assert_eq!(clock.when(now), When::Now);
        let done = pass(&mut clock, now, 1_000, MS / 100);
        assert_eq!(clock.when(done + pause(10 * MS)), When::Now);
    }

    #[test]
    fn a_paced_feed_adds_no_delay_while_its_passes_are_short() {
        let (mut clock, mut now) = (PassClock::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(clock.when(now), When::Now);
            pass(&mut clock, now, 10, MS / 10);
            now += 2 * MS;
        }
    }

    #[test]
    fn a_saturated_feed_pauses_in_proportion_to_its_pass() {
        let (mut clock, mut now) = (PassClock::default(), Instant::now());
        for readers in [10, 1_000, 15_000, 10] {
            let sent = now;
            let token = clock.sent(sent, readers);
            assert_eq!(clock.when(sent + MS), When::AfterPass);
            for _ in 0..readers {
                now += MS / 100;
                assert!(matches!(clock.when(now), When::AfterPass));
                clock.give_back(token, || now);
            }
            let next = sent + pause(now - sent);
            assert_eq!(clock.when(now), When::At(next));
            assert_eq!(clock.when(next), When::Now);
            now = next;
        }
    }

    #[test]
    fn a_stalled_reader_that_falls_behind_ends_the_pass() {
        let (mut clock, now) = (PassClock::default(), Instant::now());
        let before = clock.token();
        let token = clock.sent(now, 3);
        assert!(!clock.give_back(token, || now + MS));
        // One that received the frame and could not write it, and one that never took it.
        assert!(!clock.give_back(token, || now + 2 * MS));
        assert!(clock.leave(before, || now + 3 * MS));
        assert_eq!(clock.when(now + 3 * MS), When::At(now + pause(3 * MS)));
    }

    #[test]
    fn without_readers_there_is_no_pass() {
        let (mut clock, now) = (PassClock::default(), Instant::now());
        clock.sent(now, 0);
        assert_eq!(clock.when(now), When::Now);
    }

    #[test]
    fn one_reader_is_a_whole_pass() {
        let (mut clock, now) = (PassClock::default(), Instant::now());
        let done = pass(&mut clock, now, 1, MS);
        assert_eq!(clock.when(done), When::At(now + pause(MS)));
    }

    #[test]
    fn readers_come_and_go() {
        let (mut clock, now) = (PassClock::default(), Instant::now());
        let early = clock.sent(now, 2);
        // Comes during the pass, is not sent its frame, and goes: it owes nothing.
        let late = clock.token();
        assert!(!clock.leave(late, || now + MS));
        assert!(!clock.give_back(early, || now + MS));
        assert_eq!(clock.when(now + MS), When::AfterPass);
        assert!(clock.give_back(early, || now + 2 * MS));
        // Leaves after it gave its token back, during no pass.
        assert!(!clock.leave(early, || now + 3 * MS));
        // A second answer for the same frame counts for nothing.
        assert!(!clock.give_back(early, || now + 3 * MS));
    }

    #[test]
    fn a_frame_that_was_sent_early_begins_a_new_pass() {
        let (mut clock, now) = (PassClock::default(), Instant::now());
        let first = clock.sent(now, 2);
        assert!(!clock.give_back(first, || now + MS));
        // Full before its time.
        let second = clock.sent(now + 2 * MS, 2);
        assert!(!clock.give_back(first, || now + 3 * MS));
        assert_eq!(clock.when(now + 3 * MS), When::AfterPass);
        assert!(!clock.give_back(second, || now + 3 * MS));
        assert!(clock.give_back(second, || now + 4 * MS));
        assert_eq!(
            clock.when(now + 4 * MS),
            When::At(now + 2 * MS + pause(2 * MS))
        );
    }
}
