//! An end for tests that find none: the harness would wait for them for ever, and never say for which.

use super::process;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::Write as _,
    process::{Command, exit},
    sync::{Mutex, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Much longer than any test takes on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(900);

/// The tests that are watched, by name, and since when.
static RUNNING: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

thread_local! {
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

/// Lives as long as the thread of its test, so that destructors that hang are seen as well.
struct Watched(String);

impl Drop for Watched {
    fn drop(&mut self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.0);
    }
}

/// Has the test on whose thread this is called end within [`TIME_MAX`]: if it does not, it is named, with what it waits for, and
/// the whole run ends. What starts servers and clients for tests, or takes a port for one, calls this.
pub(crate) fn watch() {
    static START: Once = Once::new();
    START.call_once(|| {
        if !takes_any_time() {
            thread::spawn(look);
        }
    });
    // Threads of tests are named after them, and those of runtimes and helpers are not.
    let thread = thread::current();
    let name = match thread.name() {
        Some(name) if name.contains("::") => name,
        // One thread runs all tests: the harness has named the last, and nobody sees where it ends. Its time begins again here.
        Some("main") => {
            let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert("(the last that has begun)".to_owned(), Instant::now());
            return;
        }
        _ => return,
    };
    WATCHED.with_borrow_mut(|watched| {
        watched.get_or_insert_with(|| {
            let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(name.to_owned(), Instant::now());
            Watched(name.to_owned())
        });
    });
}

/// Whether somebody asked for more rounds of a test than it has: it has an end in time of its own.
fn takes_any_time() -> bool {
    let knobs = [
        "CLUSTER_ROUNDS",
        "KILL_ROUNDS",
        "REPLICA_ROUNDS",
        "TRANSPORT_SEEDS",
    ];
    knobs
        .into_iter()
        .any(|knob| std::env::var_os(knob).is_some())
}

fn look() {
    loop {
        thread::sleep(Duration::from_secs(5));
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let late = running.iter().find(|(_, since)| since.elapsed() > TIME_MAX);
        if let Some((name, since)) = late {
            end(name, since.elapsed());
        }
    }
}

/// Says what is known, past the harness, which would keep it for the end of the test.
fn end(name: &str, after: Duration) -> ! {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "test {name} has not ended after {after:?}: FAILED");
    let list = thread::spawn(|| {
        let mut list = Command::new("ps");
        list.args(["-eo", "pid,ppid,stat,etimes,wchan:20,args"]);
        process::output(&mut list, Duration::from_secs(30))
    });
    if let Ok(list) = list.join() {
        let _ = stderr.write_all(&list.stdout);
    }
    exit(101);
}
