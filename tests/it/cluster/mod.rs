//! What several nodes on one broker promise while nodes, the broker and the network fail: under load, with the real
//! programs. Each test runs on all three brokers, one test at a time, since each is a load for the whole machine.

use crate::support::broker::Kind;
use tokio::sync::{Mutex, MutexGuard};

macro_rules! on_each_broker {
    ($($(#[$doc:meta])* async fn $name:ident($kind:ident: Kind) $body:block)*) => {
        $($(#[$doc])* async fn $name($kind: Kind) $body)*

        on_each_broker!(in redis, Redis: $($name)*);
        on_each_broker!(in nats, Nats: $($name)*);
        on_each_broker!(in rabbitmq, RabbitMq: $($name)*);
    };
    (in $module:ident, $kind:ident: $($name:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let _alone = crate::cluster::alone().await;
                super::$name(super::Kind::$kind).await;
            })*
        }
    };
}

mod broker_dies;
mod epochs;
mod load;
mod nodes_die;
mod rolling;
mod slow;

/// Held by the one test that runs.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// How often a test does what it is about: so often, unless `CLUSTER_ROUNDS` says more. (No name of Tidings: the hub
/// refuses variables of its own that it does not know.)
#[expect(clippy::disallowed_methods, reason = "a knob of these tests alone")]
fn rounds(at_least: usize) -> usize {
    let rounds = std::env::var("CLUSTER_ROUNDS");
    let rounds = rounds.map_or(0, |text| text.parse().expect("a number of rounds"));
    at_least.max(rounds)
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Redis => "redis",
        Kind::Nats => "nats",
        Kind::RabbitMq => "rabbitmq",
    }
}
