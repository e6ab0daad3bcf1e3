//! Nobody fails: three publishers, three nodes, and three hundred readers that come and go.

use super::name;
use crate::support::{
    broker::{Kind, shared},
    cluster::{Cluster, Load, Options, note},
};

/// Events of each publisher.
const EVENTS: u64 = 400;

on_each_broker! {
    async fn every_reader_gets_every_event_once_and_in_the_same_order_on_all_nodes(kind: Kind) {
        let cluster = Cluster::start(&shared(kind).url(), "").await;
        let options = Options {
            wander: 80,
            ..Options::default()
        };
        let load = Load::start(&cluster, options);
        load.each_publishes(EVENTS).await;
        let report = load.finish(&cluster, &[0, 1, 2]).await;
        note(&format!("{}: {report:?}", name(kind)));
        assert!(report.streams > 3 * 300, "they come and go: {report:?}");
        assert_eq!(report.cut, 0, "a node ended a stream");
    }
}
