//! `kill -9` of nodes under load: their readers and their publisher go on elsewhere, and they come back with their old disk
//! or with an empty one.

use super::{name, rounds};
use crate::support::{
    broker::{Kind, shared},
    cluster::{Cluster, Load, Options, note, until_ready},
};

on_each_broker! {
    async fn a_node_that_was_killed_is_ready_once_it_has_all_and_nobody_misses_it(kind: Kind) {
        let mut cluster = Cluster::start(&shared(kind).url(), "").await;
        let options = Options {
            nodes_end: true,
            ..Options::default()
        };
        let load = Load::start(&cluster, options);
        for round in 0..rounds(4) {
            load.each_publishes(20).await;
            let victim = round % cluster.nodes.len();
            cluster.nodes[victim].kill();
            // Each of the three, also the one whose node this was.
            load.each_publishes(40).await;
            let empty = round % 2 == 1;
            if empty {
                cluster.nodes[victim].wipe();
            }
            let before = load.acknowledged();
            cluster.nodes[victim].start_again();
            let took = until_ready(&cluster.nodes[victim]).await;
            let newest = cluster.newest(victim).await;
            let last = before.last().expect("events");
            assert!(
                newest.epoch == last.at.epoch && newest.position >= last.at.position,
                "ready, and its newest is {newest}, while {last:?} was acknowledged before it started"
            );
            // It also has all before.
            let first = before.first().expect("events");
            let replayed = cluster.replay(victim, first.at, last.at).await;
            let mut replayed = replayed.iter();
            for event in &before[1..] {
                // What was not acknowledged yet may stand between.
                let found = replayed.any(|got| got == event);
                assert!(found, "round {round}: ready without {event:?}");
            }
            note(&format!("{}: empty: {empty}, ready after {took:?}", name(kind)));
        }
        load.each_publishes(20).await;
        let report = load.finish(&cluster, &[0, 1, 2]).await;
        note(&format!("{}: {report:?}", name(kind)));
        assert!(report.cut > 0, "{report:?}");
    }
}
