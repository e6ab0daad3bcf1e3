//! From the configuration to the log: one of this hub's own, or a replica of a cluster's journal.

use super::StartError;
use crate::{
    cluster::{Clocks, ReplicatedLog, journal::JournalOptions, journal_at},
    config::{self, Config, JournalUrl},
    log::{
        Clock, EventLog, LogOptions,
        memory::MemoryLog,
        replica::ReplicaLog,
        retention::{Limits, Retention, Rule},
        sqlite::{self, OpenError, SqliteLog},
    },
};
use std::{sync::Arc, time::Duration};

/// The log, and once more if other nodes share it.
pub(super) type Opened = (Arc<dyn EventLog>, Option<Arc<ReplicatedLog>>);

pub(super) async fn open_log(config: &Config) -> Result<Opened, StartError> {
    match &config.cluster.journal {
        Some(url) => {
            let log = open_replica(config, url).await?;
            Ok((Arc::clone(&log) as Arc<dyn EventLog>, Some(log)))
        }
        None => Ok((open_single(config)?, None)),
    }
}

async fn open_replica(config: &Config, url: &JournalUrl) -> Result<Arc<ReplicatedLog>, StartError> {
    let cluster = &config.cluster;
    let journal = journal_at(url.secret(), &journal_options(config)?)?;
    let options = log_options(&config.log);
    let alone = config.data_dir.join(sqlite::FILE);
    if alone.exists() {
        tracing::warn!(
            path = %alone.display(),
            "the events that this hub kept alone are not part of the cluster: they stay where they are, unused; \
             docs/clustering.md says how to publish them to it"
        );
    }
    let local: Arc<dyn ReplicaLog> = match config.log.engine {
        config::Engine::Memory => Arc::new(MemoryLog::replica(options)),
        config::Engine::Sqlite => {
            let dir = config.data_dir.join(format!("cluster-{}", cluster.name));
            Arc::new(SqliteLog::open(&dir, sqlite::Durability::Replica, options)?)
        }
    };
    let describe = journal.describe();
    tracing::info!(journal = %describe, name = %cluster.name, "a node of a cluster");
    let log = ReplicatedLog::open(local, journal, Clocks::system()).await;
    let log = log.map_err(|why| StartError::Journal {
        journal: describe,
        why,
    })?;
    Ok(Arc::new(log))
}

/// What a journal keeps, unless it is told: as much in time as its nodes, and in bytes what a broker can bear.
const JOURNAL_BYTES_REDIS: u64 = 256 << 20; // 256 MiB
const JOURNAL_BYTES: u64 = 1 << 30; // 1 GiB

/// What the journal's adapters are told.
///
/// # Errors
///
/// [`StartError::Password`].
pub fn journal_options(config: &Config) -> Result<JournalOptions, StartError> {
    let (log, cluster) = (&config.log, &config.cluster);
    let password = cluster.password_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).map_err(|source| StartError::Password {
            path: path.clone(),
            source,
        })?;
        Ok::<_, StartError>(text.lines().next().unwrap_or_default().to_owned())
    });
    let in_memory = cluster
        .journal
        .as_ref()
        .is_some_and(|url| url.secret().starts_with("redis"));
    let bytes_max = cluster.journal_bytes_max.unwrap_or(match in_memory {
        true => JOURNAL_BYTES_REDIS,
        false => JOURNAL_BYTES,
    });
    let rules = log.retention.iter().map(|rule| rule.age_max);
    let ages = rules.chain([
        Some(config::RETENTION_AGE_DEFAULT),
        Some(log.idempotency_age_max),
    ]);
    let longest = ages.map(|age| age.unwrap_or(Duration::MAX)).max();
    let age_max = cluster.journal_age_max.or(longest).unwrap_or(Duration::MAX);
    if cluster.journal_bytes_max.is_none() && bytes_max < log.bytes_max {
        tracing::warn!(
            journal_bytes_max = bytes_max,
            log_bytes_max = log.bytes_max,
            "the journal keeps less than a node's log may: a node that begins with nothing gets only what the journal \
             still has; cluster.journal_bytes_max sets its bound"
        );
    }
    Ok(JournalOptions {
        name: cluster.name.clone(),
        age_max_ms: u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX),
        bytes_max,
        ca_file: cluster.ca_file.clone(),
        password: password.transpose()?,
        redis_wait: u32::try_from(cluster.redis_wait).unwrap_or(u32::MAX),
        nats_replicas: usize::try_from(cluster.nats_replicas).unwrap_or(usize::MAX),
    })
}

fn open_single(config: &Config) -> Result<Arc<dyn EventLog>, OpenError> {
    let options = log_options(&config.log);
    match config.log.engine {
        config::Engine::Memory => Ok(Arc::new(MemoryLog::new(options))),
        config::Engine::Sqlite => {
            let durability = match config.log.durability {
                config::Durability::Sync => sqlite::Durability::Sync,
                config::Durability::Os => sqlite::Durability::Os,
            };
            Ok(Arc::new(SqliteLog::open(
                &config.data_dir,
                durability,
                options,
            )?))
        }
    }
}

fn log_options(config: &config::LogConfig) -> LogOptions {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let rules = config.retention.iter().map(|rule| Rule {
        topics: rule.topics.clone(),
        limits: Limits {
            age_max_ms: rule.age_max.map(ms),
            events_max: rule.events_max,
            bytes_max: rule.bytes_max,
        },
    });
    LogOptions {
        retention: Retention {
            rules: rules.collect(),
            default: Limits {
                age_max_ms: Some(ms(config::RETENTION_AGE_DEFAULT)),
                events_max: None,
                bytes_max: None,
            },
            bytes_max: config.bytes_max,
        },
        key_age_max_ms: ms(config.idempotency_age_max),
        keys_max: config.idempotency_keys_max,
        emptied_topics_max: config.emptied_topics_max,
        clock: Clock::system(),
    }
}
