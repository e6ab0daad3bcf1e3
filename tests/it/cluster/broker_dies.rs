//! `kill -9` of the broker under load, and its return on its data: what was acknowledged is there once, streams stay open,
//! replay goes on, and publishing heals by itself.

use super::{name, rounds};
use crate::support::{
    broker::{Broker, Kind},
    cluster::{Cluster, Load, Options, note, until_journal_down},
};
use std::time::Duration;

/// Publishing works again so soon after the broker does.
const HEALED: Duration = Duration::from_secs(5);

on_each_broker! {
    async fn a_broker_that_was_killed_loses_nothing_and_is_back_by_itself(kind: Kind) {
        let mut broker = Broker::start(kind).await;
        let cluster = Cluster::start(&broker.url(), "").await;
        let load = Load::start(&cluster, options());
        let mut slowest = Duration::ZERO;
        let rounds = rounds(3);
        for _ in 0..rounds {
            load.each_publishes(30).await;
            broker.kill().await;
            goes_on_without_it(&cluster, &load).await;
            broker.restart().await;
            slowest = slowest.max(heals(&cluster, &load).await);
        }
        let report = load.finish(&cluster, &[0, 1, 2]).await;
        note(&format!("{}: {rounds} kills, healed after {slowest:?} at most, {report:?}", name(kind)));
        assert_eq!(report.cut, 0, "streams stay open: {report:?}");
        assert!(report.tally.unavailable > 0, "{report:?}");
    }

    async fn a_publish_whose_outcome_is_unknown_is_settled_by_its_key(kind: Kind) {
        let mut broker = Broker::start(kind).await;
        let cluster = Cluster::start(&broker.url(), "").await;
        let load = Load::start(&cluster, options());
        for round in 0..rounds(2) {
            load.each_publishes(20).await;
            let before = load.tally();
            // What is on its way now is not answered.
            broker.pause();
            load.until("each publisher's outcome is unknown", |tally| {
                tally.pending >= before.pending + 3
            })
            .await;
            if round % 2 == 0 {
                // The broker reads what came meanwhile: it lands after it was given up.
                broker.resume();
            } else {
                broker.kill().await;
                goes_on_without_it(&cluster, &load).await;
                broker.restart().await;
            }
            let healed = heals(&cluster, &load).await;
            note(&format!("{}: healed after {healed:?}", name(kind)));
        }
        let report = load.finish(&cluster, &[0, 1, 2]).await;
        note(&format!("{}: {report:?}", name(kind)));
        assert_eq!(report.cut, 0, "streams stay open: {report:?}");
    }
}

fn options() -> Options {
    Options {
        broker_ends: true,
        ..Options::default()
    }
}

/// While the broker is away: nodes are ready and say why they take nothing, and each gives what it has.
async fn goes_on_without_it(cluster: &Cluster, load: &Load) {
    for node in &cluster.nodes {
        until_journal_down(node).await;
    }
    let acknowledged = load.acknowledged();
    // The newest may have reached only one of the nodes.
    let some = &acknowledged[acknowledged.len() - 50..][..30];
    let (first, last) = (some[0], some[29]);
    let mut replays = Vec::new();
    for node in 0..cluster.nodes.len() {
        replays.push(cluster.replay(node, first.at, last.at).await);
    }
    let [one, two, three] = &replays[..] else {
        unreachable!()
    };
    assert!(one == two && two == three, "{replays:#?}");
    for event in &some[1..] {
        assert!(one.contains(event), "{event:?} in {one:#?}");
    }
    let before = load.tally().unavailable;
    load.until("publishes are refused", |tally| {
        tally.unavailable >= before + 3
    })
    .await;
}

/// Gives how long after the broker's return each node took publishes.
async fn heals(cluster: &Cluster, load: &Load) -> Duration {
    let healed = cluster.healed_after().await;
    assert!(healed < HEALED, "healed only after {healed:?}");
    load.each_publishes(5).await;
    healed
}
