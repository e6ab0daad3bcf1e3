//! Brokers of several parts, and brokers behind TLS.

use super::epochs::{Reader, publish, readers};
use crate::support::{
    broker::{Broker, Kind, Settings, nats::NatsCluster, sentinel::SentinelSet},
    cluster::{Cluster, Load, Options, note},
};
use std::time::Duration;

const HEALED: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nats_servers_lose_their_leader_and_nothing_else() {
    let _alone = super::alone().await;
    let mut servers = NatsCluster::start().await;
    let cluster = Cluster::start(&servers.url(), "nats_replicas = 3\n").await;
    let stream = format!("tidings_{}", cluster.name);
    let load = Load::start(
        &cluster,
        Options {
            readers: 60,
            broker_ends: true,
            ..Options::default()
        },
    );
    for _ in 0..super::rounds(2) {
        load.each_publishes(20).await;
        servers.kill_leader(&stream).await;
        servers.leader(&stream).await;
        let healed = cluster.healed_after().await;
        note(&format!("nats x 3: healed {healed:?} after another leads"));
        assert!(healed <= HEALED, "{healed:?}");
        load.each_publishes(20).await;
        servers.restart().await;
    }
    let report = load.finish(&cluster, &[0, 1, 2]).await;
    note(&format!("nats x 3: {report:?}"));
}

/// What the replica did not have yet is lost, and told; or nothing was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_master_is_followed_by_its_replica() {
    let _alone = super::alone().await;
    let mut set = SentinelSet::start().await;
    let cluster = Cluster::start(&set.url(), "").await;
    let mut readers = readers(&cluster).await;
    publish(&cluster, 0..50).await;
    for reader in &mut readers {
        reader.reads(0..50).await;
    }
    set.kill_master().await;
    let healed = cluster.healed_after().await;
    note(&format!(
        "sentinel: healed {healed:?} after another master is named"
    ));
    assert!(healed <= HEALED, "{healed:?}");
    publish(&cluster, 100..120).await;
    for reader in &mut readers {
        reader.reads_perhaps_after_a_gap(100..120).await;
    }
    let first = cluster.stored(0).await;
    let new: Vec<_> = first
        .iter()
        .rev()
        .take(20)
        .map(|event| event.number)
        .collect();
    assert!(new.into_iter().rev().eq(100..120));
    for node in 1..3 {
        assert_eq!(cluster.stored(node).await, first, "node {node}");
    }
}

on_each_broker! {
    async fn over_tls_with_an_authority_of_ones_own(kind: Kind) {
        let settings = Settings { tls: true, ..Settings::default() };
        let broker = Broker::start_with(kind, settings).await;
        let ca_file = broker.ca_file().unwrap();
        let cluster = Cluster::start(&broker.url(), &format!("ca_file = {ca_file:?}\n")).await;
        let mut readers: Vec<Reader> = readers(&cluster).await;
        publish(&cluster, 0..20).await;
        for reader in &mut readers {
            reader.reads(0..20).await;
        }
    }
}
