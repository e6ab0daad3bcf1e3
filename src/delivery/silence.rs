//! When streams have been silent for too long: one timer for all of them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Steps that the longest silence is divided into.
const STEPS: u64 = 64;

/// A wheel of as many slots as the longest silence has steps. A stream waits in the slot of the step at which its
/// silence ends; at each step those in one slot are woken. So 15,000 streams cost one timer, and their keepalives
/// are spread as their silences are.
pub struct Silences {
    step: Duration,
    now: AtomicU64,
    slots: [Mutex<Slot>; STEPS as usize],
}

/// Wakers by key, and the keys that are free.
#[derive(Default)]
struct Slot {
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

/// The silence of one stream. Dropping it leaves nothing behind.
pub struct Silence {
    all: Arc<Silences>,
    /// The step of the last noise.
    since: u64,
    waits: Option<Waits>,
}

struct Waits {
    step: u64,
    key: u32,
    waker: Waker,
}

impl Silences {
    /// Silences that end before they are as long as that, by at most 1/32 of it. They do once [`Silences::run`] runs.
    #[must_use]
    pub fn new(longest: Duration) -> Arc<Self> {
        Arc::new(Self {
            step: (longest / u32::try_from(STEPS).unwrap_or(1)).max(Duration::from_micros(1)),
            now: AtomicU64::new(0),
            slots: std::array::from_fn(|_| Mutex::default()),
        })
    }

    /// Turns the wheel until the end.
    pub async fn run(self: Arc<Self>, end: CancellationToken) {
        let mut timer = tokio::time::interval(self.step);
        let begun = timer.tick().await;
        loop {
            let at = tokio::select! {
                () = end.cancelled() => return,
                at = timer.tick() => at,
            };
            // After a pause of the whole process some ticks come at once.
            let steps = at.duration_since(begun).div_duration_f64(self.step).round();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count"
            )]
            self.turn_to(steps as u64);
        }
    }

    fn turn_to(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
        let wakers = self.slot(now).wakers.clone();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn slot(&self, step: u64) -> MutexGuard<'_, Slot> {
        let index = usize::try_from(step % STEPS).unwrap_or(0);
        self.slots[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Silence {
    /// A silence that begins now.
    #[must_use]
    pub fn new(all: &Arc<Silences>) -> Self {
        Self {
            since: all.now.load(Ordering::Relaxed),
            all: Arc::clone(all),
            waits: None,
        }
    }

    /// Something is heard: the silence begins anew. (Costs nothing; where it waits it finds out that it is too early.)
    pub fn begin(&mut self) {
        self.since = self.all.now.load(Ordering::Relaxed);
    }

    /// Ready when the silence has been too long.
    pub fn poll_end(&mut self, cx: &Context<'_>) -> Poll<()> {
        // One step early, for what was begun late in a step; and one that a late timer may take.
        let end = self.since + STEPS - 2;
        if self.all.now.load(Ordering::Relaxed) >= end {
            return Poll::Ready(());
        }
        let waits = self.waits.as_ref();
        // Still ahead: it is looked at again there.
        let woken_before = |waits: &Waits| {
            waits.step <= end
                && waits.step > self.all.now.load(Ordering::Relaxed)
                && waits.waker.will_wake(cx.waker())
        };
        if !waits.is_some_and(woken_before) {
            self.wait(end, cx.waker().clone());
            // The wheel may have turned meanwhile.
            if self.all.now.load(Ordering::Relaxed) >= end {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn wait(&mut self, step: u64, waker: Waker) {
        self.leave();
        let mut slot = self.all.slot(step);
        let key = match slot.free.pop() {
            Some(key) => key,
            None => {
                slot.wakers.push(None);
                u32::try_from(slot.wakers.len() - 1).unwrap_or(u32::MAX)
            }
        };
        slot.wakers[key as usize] = Some(waker.clone());
        drop(slot);
        self.waits = Some(Waits { step, key, waker });
    }

    fn leave(&mut self) {
        if let Some(Waits { step, key, .. }) = self.waits.take() {
            let mut slot = self.all.slot(step);
            slot.wakers[key as usize] = None;
            slot.free.push(key);
        }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::AtomicUsize,
        task::{Poll, Wake},
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Task {
        silence: Silence,
        woken: Arc<Count>,
    }

    impl Task {
        fn new(all: &Arc<Silences>) -> Self {
            Self {
                silence: Silence::new(all),
                woken: Arc::default(),
            }
        }

        fn poll(&mut self) -> Poll<()> {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.silence.poll_end(&Context::from_waker(&waker))
        }

        /// Turns the wheel step by step until the silence ends, polling only when woken.
        fn ends_after(&mut self, all: &Silences) -> u64 {
            let begun = all.now.load(Ordering::Relaxed);
            let mut woken = self.woken.0.load(Ordering::Relaxed);
            assert_eq!(self.poll(), Poll::Pending);
            for step in begun + 1.. {
                all.turn_to(step);
                let now = self.woken.0.load(Ordering::Relaxed);
                if std::mem::replace(&mut woken, now) != now && self.poll().is_ready() {
                    return step - begun;
                }
                assert!(step < begun + 10 * STEPS, "it never ends");
            }
            unreachable!("the loop has no end");
        }
    }

    #[test]
    fn a_silence_ends_in_its_last_steps_and_again() {
        let all = Silences::new(Duration::from_secs(15));
        let mut task = Task::new(&all);
        for _ in 0..3 {
            assert_eq!(task.ends_after(&all), STEPS - 2);
            task.silence.begin();
        }
    }

    #[test]
    fn what_is_heard_meanwhile_begins_it_anew() {
        let all = Silences::new(Duration::from_secs(15));
        let mut task = Task::new(&all);
        assert_eq!(task.poll(), Poll::Pending);
        all.turn_to(40);
        task.silence.begin();
        assert_eq!(task.ends_after(&all), STEPS - 2);
    }

    #[test]
    fn streams_are_woken_in_their_own_slots_only() {
        let all = Silences::new(Duration::from_secs(15));
        let mut tasks: Vec<Task> = (0..STEPS)
            .map(|step| {
                all.turn_to(step);
                let mut task = Task::new(&all);
                assert_eq!(task.poll(), Poll::Pending);
                task
            })
            .collect();
        for step in STEPS..2 * STEPS {
            all.turn_to(step);
        }
        let woken = |task: &Task| task.woken.0.load(Ordering::Relaxed);
        assert!(tasks.iter().all(|task| (1..=2).contains(&woken(task))));
        assert!(tasks.iter_mut().any(|task| task.poll().is_ready()));
        drop(tasks);
        let empty = |slot: &Mutex<Slot>| slot.lock().unwrap().wakers.iter().all(Option::is_none);
        assert!(all.slots.iter().all(empty));
    }

    #[test]
    fn another_task_may_go_on_with_it() {
        let all = Silences::new(Duration::from_secs(15));
        let mut task = Task::new(&all);
        assert_eq!(task.poll(), Poll::Pending);
        task.woken = Arc::default();
        assert_eq!(task.ends_after(&all), STEPS - 2);
    }
}
