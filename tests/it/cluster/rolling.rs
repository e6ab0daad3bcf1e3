//! All nodes are restarted, one after the other, under load, as an upgrade does it: SIGTERM, drain, start.

use super::{name, rounds};
use crate::support::{
    broker::{Kind, shared},
    cluster::{Cluster, Load, Options, note, until_ready},
};

on_each_broker! {
    async fn a_rolling_restart_loses_nothing_and_doubles_nothing(kind: Kind) {
        let mut cluster = Cluster::start(&shared(kind).url(), "").await;
        let options = Options {
            nodes_end: true,
            ..Options::default()
        };
        let load = Load::start(&cluster, options);
        for _ in 0..rounds(1) {
            for node in 0..cluster.nodes.len() {
                load.each_publishes(20).await;
                cluster.nodes[node].terminate();
                load.each_publishes(20).await;
                cluster.nodes[node].start_again();
                until_ready(&cluster.nodes[node]).await;
            }
        }
        load.each_publishes(20).await;
        let report = load.finish(&cluster, &[0, 1, 2]).await;
        note(&format!("{}: {report:?}", name(kind)));
        assert!(report.cut >= 100, "readers were sent elsewhere: {report:?}");
    }
}
