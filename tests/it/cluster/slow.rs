//! Nodes and networks that are slow or stand still: a node that is stopped, a node that the journal's trimming overtakes,
//! and a broker behind a bad network.

use super::{name, rounds};
use crate::support::{
    broker::{Kind, shared},
    chaos::{ChaosProxy, Mode},
    cluster::{Cluster, Load, Options, note, until_journal_down, until_ready},
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a node stands still, at least.
const STOPPED: Duration = Duration::from_secs(10);
/// The same, if more rounds are asked for.
const STOPPED_LONG: Duration = Duration::from_secs(30);

/// Publishing works again so soon after the network does.
const HEALED: Duration = Duration::from_secs(5);

on_each_broker! {
    async fn a_node_that_stood_still_catches_up_and_its_readers_get_everything(kind: Kind) {
        let cluster = Cluster::start(&shared(kind).url(), "").await;
        let options = Options {
            nodes_end: true,
            request_timeout: Duration::from_secs(2),
            ..Options::default()
        };
        let load = Load::start(&cluster, options);
        let stopped = if rounds(1) > 1 { STOPPED_LONG } else { STOPPED };
        load.each_publishes(20).await;
        let node = &cluster.nodes[1];
        let begun = Instant::now();
        node.pause();
        load.each_publishes(40).await;
        // Time itself is what it is to miss.
        sleep(stopped.saturating_sub(begun.elapsed())).await;
        let before = load.acknowledged();
        node.resume();
        let took = until_ready(node).await;
        let last = before.last().expect("events");
        cluster.replay(1, before[0].at, last.at).await;
        load.each_publishes(20).await;
        let report = load.finish(&cluster, &[0, 1, 2]).await;
        note(&format!("{}: stopped for {stopped:?}, ready after {took:?}, {report:?}", name(kind)));
    }

    async fn a_node_slower_than_trimming_tells_its_readers_of_a_gap(kind: Kind) {
        let cluster = Cluster::start(&shared(kind).url(), "journal_bytes_max = \"3MiB\"").await;
        let options = Options {
            readers: 30,
            wander: 0,
            padding: 8 << 10, // 8 KiB
            nodes_end: true,
            // What was on its way when the node stood still, it cannot find where it begins anew.
            broker_ends: true,
            request_timeout: Duration::from_secs(2),
            gaps: true,
        };
        let load = Load::start(&cluster, options);
        load.each_publishes(20).await;
        let node = &cluster.nodes[1];
        node.pause();
        let before: u64 = load.tally().acknowledged.iter().sum();
        load.until("8 MiB more", |tally| {
            tally.acknowledged.iter().sum::<u64>() >= before + 1_024
        })
        .await;
        node.resume();
        load.until("readers are told", |tally| tally.gaps > 0).await;
        until_ready(node).await;
        load.each_publishes(20).await;
        let report = load.finish(&cluster, &[0, 2]).await;
        note(&format!("{}: {report:?}", name(kind)));
        assert_eq!(report.gapped, 10, "each reader of that node, and nobody else: {report:?}");
        assert_eq!(report.cut, 0, "they go on: {report:?}");
    }

    async fn a_bad_network_to_the_broker_is_like_a_broker_that_is_away(kind: Kind) {
        let broker = shared(kind);
        let proxy = ChaosProxy::start(broker.address()).await;
        let cluster = Cluster::start(&broker.url_at(proxy.address), "").await;
        let options = Options {
            broker_ends: true,
            ..Options::default()
        };
        let load = Load::start(&cluster, options);
        for _ in 0..rounds(1) {
            for (mode, stays) in [
                (Mode::Stall, false),
                (Mode::Cut, false),
                (Mode::Delay(Duration::from_millis(500)), true),
                (Mode::Throttle(8 << 10), true), // 8 KiB a second for each connection
            ] {
                load.each_publishes(20).await;
                proxy.set(mode).await;
                if stays {
                    load.each_publishes(10).await;
                } else {
                    for node in &cluster.nodes {
                        until_journal_down(node).await;
                    }
                }
                proxy.set(Mode::Pass).await;
                let healed = cluster.healed_after().await;
                note(&format!("{}: {mode:?}, healed after {healed:?}", name(kind)));
                assert!(healed < HEALED, "{mode:?}: healed only after {healed:?}");
            }
        }
        load.each_publishes(20).await;
        let report = load.finish(&cluster, &[0, 1, 2]).await;
        note(&format!("{}: {report:?}", name(kind)));
        assert_eq!(report.cut, 0, "streams stay open: {report:?}");
    }
}
