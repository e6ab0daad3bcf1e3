//! The laws of `EventLog`, each as a test that every engine runs.

use crate::log_support::{
    Engine, InMemory, ManualClock, Memory, NEW_YEAR, OnNats, OnRabbitMq, OnRedis, PAGE, Replicated,
    Sqlite, UNLIMITED, after, append, draft, filter, full, join_all, kept, keyed, options, owned,
    put, replay, replay_in, rule, start, try_append,
};
use crate::support::wait::in_time;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tidings::{
    cursor::Cursor,
    event::OwnId,
    log::{
        AppendError, Batch, EventLog, LogOptions, Loss, Outcome, PageGap, PageLimits, Place, Start,
        StartGap, TAIL_GROUPS, retention::Limits,
    },
};

/// Much longer than any law takes on a busy machine.
const LAW_MAX: Duration = Duration::from_secs(300);

macro_rules! laws {
    ($($(#[$doc:meta])* async fn $name:ident<E: Engine>() $body:block)*) => {
        $($(#[$doc])* async fn $name<E: Engine>() $body)*

        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::in_time(super::LAW_MAX, "its end", super::$name::<super::Memory>()).await;
            })*
        }

        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::in_time(super::LAW_MAX, "its end", super::$name::<super::Sqlite>()).await;
            })*
        }

        mod replica {
            $(#[tokio::test]
            async fn $name() {
                super::in_time(super::LAW_MAX, "its end", super::$name::<super::Replicated<super::InMemory>>()).await;
            })*
        }

        mod redis {
            $(#[tokio::test]
            async fn $name() {
                super::in_time(super::LAW_MAX, "its end", super::$name::<super::Replicated<super::OnRedis>>()).await;
            })*
        }

        mod nats {
            $(#[tokio::test]
            async fn $name() {
                super::in_time(super::LAW_MAX, "its end", super::$name::<super::Replicated<super::OnNats>>()).await;
            })*
        }

        mod rabbitmq {
            $(#[tokio::test]
            async fn $name() {
                super::in_time(super::LAW_MAX, "its end", super::$name::<super::Replicated<super::OnRabbitMq>>()).await;
            })*
        }
    };
}

const REMOVED: PageGap = PageGap {
    loss: Loss::Removed,
    missed: None,
};

fn open<E: Engine>() -> (ManualClock, E) {
    open_with(|_| ())
}

fn open_with<E: Engine>(change: impl FnOnce(&mut LogOptions)) -> (ManualClock, E) {
    let clock = ManualClock::new();
    let mut options = options(&clock);
    change(&mut options);
    let engine = E::new(options);
    (clock, engine)
}

/// At most so many events of each topic that matches.
fn events_max(topics: &'static str, max: u64) -> impl FnOnce(&mut LogOptions) {
    let limits = Limits {
        events_max: Some(max),
        ..UNLIMITED
    };
    move |options| options.retention.rules = vec![rule(topics, limits)]
}

async fn all_or_nothing(
    log: &dyn EventLog,
    drafts: Vec<tidings::event::Draft>,
) -> Result<Vec<Outcome>, AppendError> {
    let all_or_nothing = true;
    log.append(Batch {
        drafts,
        all_or_nothing,
    })
    .await
}

fn from(position: u64) -> Place {
    Place {
        position,
        removal: 0,
    }
}

mod append;
mod gaps;
mod keep;
mod read;
