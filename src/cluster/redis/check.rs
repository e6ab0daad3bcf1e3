//! What a node has to be, so that the journal's promises hold on it.

use super::{
    Shared,
    connect::{Connection, Node},
    reply,
    scripts::Scripts,
};
use crate::cluster::journal::ConnectError;
use redis::{FromRedisValue, Value, cmd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The oldest version: scripts replicate their effects only, `XTRIM` has `MINID`, users can be asked about.
const VERSION: (u32, u32) = (7, 0);

/// What Redis takes in one argument, unless it is told otherwise.
const ARGUMENT_BYTES_MAX: usize = 1 << 29; // 512 MiB

/// A node that has passed.
pub(super) struct Checked {
    /// Random at each start of the server.
    pub(super) run_id: String,
    pub(super) entry_bytes_max: usize,
}

/// What was warned of already: connecting anew repeats nothing.
#[derive(Default)]
pub(super) struct Warnings {
    persistence: AtomicBool,
    memory: AtomicBool,
}

/// Checks the node, and makes the scripts known to it.
///
/// # Errors
///
/// [`ConnectError`], whose text names what to change.
pub(super) async fn check(
    node: &Node,
    connection: &Connection,
    shared: &Shared,
    scripts: &Scripts,
) -> Result<Checked, ConnectError> {
    let checker = Checker {
        node,
        connection,
        shared,
    };
    let info = checker.info().await?;
    checker.server(&info)?;
    checker.master().await?;
    checker.replicas(&info)?;
    checker.eviction(&info)?;
    checker.keys().await?;
    for script in scripts.all() {
        checker.ask::<String>(&script.load()).await?;
    }
    checker.permits(scripts).await?;
    checker.persistence(&info).await;
    Ok(Checked {
        run_id: info.get("run_id").unwrap_or_default().to_owned(),
        entry_bytes_max: checker
            .configured("proto-max-bulk-len")
            .await
            .and_then(|value| value.parse().ok())
            .unwrap_or(ARGUMENT_BYTES_MAX),
    })
}

/// The random name of the server's life that this connection leads to.
pub(super) async fn run_id(node: &Node, connection: &Connection) -> Result<String, ConnectError> {
    let info: String = connection
        .query(cmd("INFO").arg("server"))
        .await
        .map_err(|error| node.error(&error))?;
    Ok(Info(info).get("run_id").unwrap_or_default().to_owned())
}

struct Checker<'a> {
    node: &'a Node,
    connection: &'a Connection,
    shared: &'a Shared,
}

impl Checker<'_> {
    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, ConnectError> {
        self.connection
            .query(command)
            .await
            .map_err(|error| self.node.error(&error))
    }

    async fn info(&self) -> Result<Info, ConnectError> {
        self.ask(&cmd("INFO")).await.map(Info)
    }

    fn server(&self, info: &Info) -> Result<(), ConnectError> {
        let version = info.get("redis_version").unwrap_or("of no known version");
        if parse_version(version) < Some(VERSION) {
            return Err(self.node.refused(&format!(
                "is Redis {version}: a journal needs Redis {}.{} or later, or Valkey",
                VERSION.0, VERSION.1
            )));
        }
        if info.get("loading").is_some_and(|loading| loading != "0") {
            return Err(self.node.unavailable("is still loading its data"));
        }
        Ok(())
    }

    async fn master(&self) -> Result<(), ConnectError> {
        let role: Value = self.ask(&cmd("ROLE")).await?;
        match reply::is_master(role) {
            Ok(true) => Ok(()),
            _ => Err(self.node.unavailable("is a replica, not the master")),
        }
    }

    fn replicas(&self, info: &Info) -> Result<(), ConnectError> {
        let needed = self.shared.options.redis_wait;
        let there = info.replicas();
        if there < needed as usize {
            return Err(self.node.unavailable(&format!(
                "has {there} replicas that are up to date, of {needed} that redis_wait asks for"
            )));
        }
        Ok(())
    }

    fn eviction(&self, info: &Info) -> Result<(), ConnectError> {
        let memory_max = info.number("maxmemory").unwrap_or(0);
        let policy = info.get("maxmemory_policy").unwrap_or("noeviction");
        if memory_max == 0 {
            return Ok(());
        }
        if policy != "noeviction" {
            return Err(self.node.refused(&format!(
                "has maxmemory-policy {policy}, by which it may remove the journal: set it to noeviction"
            )));
        }
        let bytes_max = self.shared.options.bytes_max;
        if memory_max < bytes_max && !self.shared.warnings.memory.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                maxmemory_bytes = memory_max,
                journal_bytes_max = bytes_max,
                "Redis has less memory than the journal may take: once it is full, publishing is refused"
            );
        }
        Ok(())
    }

    async fn keys(&self) -> Result<(), ConnectError> {
        let keys = &self.shared.keys;
        for (key, needed) in [
            (&keys.journal, "stream"),
            (&keys.meta, "hash"),
            (&keys.nodes, "stream"),
        ] {
            let found: String = self.ask(cmd("TYPE").arg(key)).await?;
            if found != "none" && found != needed {
                return Err(self.node.refused(&format!(
                    "has something else under the key {key}: a {found}, not a {needed}; remove it, or give the cluster another name"
                )));
            }
        }
        Ok(())
    }

    async fn permits(&self, scripts: &Scripts) -> Result<(), ConnectError> {
        let keys = &self.shared.keys;
        let run = scripts
            .permits
            .run(&[&keys.journal, &keys.meta, &keys.nodes]);
        if let Some(command) = self.ask::<Option<String>>(&run).await? {
            return Err(self.node.refused(&format!(
                "does not permit {command} on the journal's keys to this user"
            )));
        }
        self.ask::<Value>(&cmd("TIME")).await?;
        if self.shared.options.redis_wait > 0 {
            self.ask::<Value>(cmd("WAIT").arg(0).arg(1)).await?;
        }
        Ok(())
    }

    /// Warns of what can be lost.
    async fn persistence(&self, info: &Info) {
        if info.get("aof_enabled") != Some("0") {
            return;
        }
        let snapshots = self.configured("save").await;
        if self
            .shared
            .warnings
            .persistence
            .swap(true, Ordering::Relaxed)
        {
            return;
        }
        let lost = match snapshots.as_deref() {
            Some("") => "it keeps nothing on disk, so all events are lost when it restarts",
            Some(_) => "what was published since its last snapshot is lost when it crashes",
            None => {
                "what was published since its last snapshot, or all if it makes none, is lost when it crashes"
            }
        };
        tracing::warn!("Redis has `appendonly no`: {lost}");
    }

    /// A setting; `None` where they may not be read, as on managed servers.
    async fn configured(&self, name: &str) -> Option<String> {
        let found: Vec<String> = self
            .connection
            .query(cmd("CONFIG").arg("GET").arg(name))
            .await
            .ok()?;
        found.into_iter().nth(1)
    }
}

/// What `INFO` says.
struct Info(String);

impl Info {
    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    /// How many replicas are there and follow.
    fn replicas(&self) -> usize {
        let online = |line: &&str| line.starts_with("slave") && line.contains(",state=online,");
        self.0.lines().filter(online).count()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_by_the_whole_name() {
        let info = Info("# Memory\r\nmaxmemory:1024\r\nmaxmemory_policy:noeviction\r\n".to_owned());
        assert_eq!(info.number("maxmemory"), Some(1024));
        assert_eq!(info.get("maxmemory_policy"), Some("noeviction"));
        assert_eq!(info.get("max"), None);
    }

    #[test]
    fn replicas_count_once_they_follow() {
        let info = Info(
            "role:master\r\nconnected_slaves:2\r\n\
             slave0:ip=127.0.0.1,port=1,state=online,offset=1,lag=0\r\n\
             slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n\
             slave_expires_tracked_keys:0\r\n"
                .to_owned(),
        );
        assert_eq!(info.replicas(), 1);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (text, enough) in [
            ("7.0.15", true),
            ("7.2.4", true),
            ("10.0.0", true),
            ("6.2.14", false),
            ("of no known version", false),
        ] {
            assert_eq!(parse_version(text) >= Some(VERSION), enough, "{text}");
        }
    }
}
