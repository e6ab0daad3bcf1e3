//! What a node does about once a second while it is linked: asks for the journal's end, has it trimmed, compares clocks, and
//! tells the others that it is there.

use super::{
    entry::{Body, Entry},
    journal::Fault,
    members::Members,
    shared::{Link, Shared},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);

/// Before what did not work is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Runs for as long as the link lives.
pub(super) async fn run(shared: Arc<Shared>, members: Arc<Members>, link: Arc<Link>) {
    members.linked();
    let tending = async {
        tokio::join!(catch_up(&shared, &link), tick(&shared, &members, &link));
    };
    tokio::select! {
        () = shared.closing.cancelled() => {
            // Others see it at once, and not by its silence.
            let _ = timeout(AGAIN_AFTER, link.session.announce(members.farewell())).await;
        }
        () = link.broken.cancelled() => {}
        () = tending => {}
    }
}

/// Waits until this node has all that the journal has now; if that has no epoch yet, begins one.
async fn catch_up(shared: &Shared, link: &Link) {
    let mut applied = shared.applied.subscribe();
    while shared.local.bounds().epoch == 0 {
        if let Err(fault) = begin_first(shared, link).await {
            return link.fail(&fault);
        }
        // It comes, or somebody else's.
        let _ = timeout(AGAIN_AFTER * 4, applied.changed()).await;
    }
    loop {
        if let Some(end) = shared.end_of(link).await {
            if applied.wait_for(|applied| *applied >= end).await.is_ok() {
                shared.caught_up();
            }
            return;
        }
        sleep(AGAIN_AFTER).await;
    }
}

async fn begin_first(shared: &Shared, link: &Link) -> Result<(), Fault> {
    let looked = *shared.applied.borrow();
    let ends = link.session.ends().await?;
    if ends.last > looked {
        return Ok(());
    }
    let to = rand::random();
    let entry = Entry {
        epoch: 0,
        writer: rand::random(),
        number: 1,
        time_ms: shared.clock.now_ms(),
        body: Body::Epoch {
            to,
            // Nothing counted before the first epoch: whoever has something of it is mistaken.
            fork: 0,
            looked,
        },
    };
    let sealed = entry.seal(0);
    let handed = link.session.append(&sealed).await;
    match handed {
        // Whatever becomes of it, the tail shows.
        Ok(acknowledged) => drop(acknowledged.await),
        Err(fault) => tracing::debug!(%fault, "no epoch was begun"),
    }
    Ok(())
}

async fn tick(shared: &Shared, members: &Members, link: &Link) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(fault) = look(shared, members, link).await {
            link.fail(&fault);
            return std::future::pending().await;
        }
    }
}

async fn look(shared: &Shared, members: &Members, link: &Link) -> Result<(), Fault> {
    let (asked, before) = (Instant::now(), *shared.applied.borrow());
    let ends = link.session.ends().await?;
    if !shared.told_end(asked, before, ends) {
        return Err(Fault(format!(
            "the journal has entries {} to {}, and this node is at {before}",
            ends.first, ends.last
        )));
    }
    // What was asked for is perhaps there by now.
    let applied = *shared.applied.borrow();
    shared.reached(applied);
    let now = shared.wall.now_ms();
    let broker = link.session.tend().await?;
    let off = match broker {
        Some(broker) => Some(broker.abs_diff(now)),
        None => members.clock_off(),
    };
    shared.clock_is_off(off.unwrap_or(0));
    link.session.announce(members.news(shared)).await
}
