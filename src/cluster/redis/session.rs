//! One session: a connection for appends, one for everything else, one for each tail.

use super::{
    CONNECT, Shared,
    check::{self, Checked},
    connect::{Connection, Node},
    fault, reply,
    scripts::Scripts,
    tail::RedisTail,
};
use crate::{
    cluster::journal::{
        Acknowledgement, AppendFault, ConnectError, Ends, EntryTail, Fault, Sealed, Session,
    },
    log::BoxFuture,
};
use bytes::Bytes;
use redis::{RedisResult, Value, cmd, pipe};
use std::{
    future::{poll_fn, ready},
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};
use tokio::{sync::Semaphore, task::coop};
use tokio_util::sync::CancellationToken;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How long replicas may take to acknowledge.
pub(super) const REPLICAS: Duration = Duration::from_secs(1);

/// Appends on their way; more wait to be sent. The connection's queue has room for many more: were it ever full, a
/// request would wait outside of it, and a later one could get ahead.
const APPENDS: usize = 1 << 10;
const _: () = assert!(APPENDS * 64 <= super::connect::QUEUE);

/// Announcements that are kept, about.
const ANNOUNCEMENTS: usize = 1_000;

/// Positions that one run of the trimming script removes at most, so that it holds up nobody for long.
const TRIM_POSITIONS: u64 = 1 << 12;

/// Runs at a time: together they remove far more than is appended in a second.
const TRIMS: usize = 64;

pub(super) struct RedisSession {
    node: Node,
    checked: Checked,
    appends: Connection,
    asks: Connection,
    scripts: Scripts,
    shared: Arc<Shared>,
    /// For the appends on their way.
    room: Arc<Semaphore>,
    broken: Arc<Broken>,
}

/// What the appends of a session have in common once they cannot go on.
#[derive(Default)]
struct Broken {
    why: OnceLock<Fault>,
    /// Replicas are missing: every append on its way would wait for them as long, one after the other.
    given_up: CancellationToken,
}

impl RedisSession {
    pub(super) async fn open(node: Node, shared: Arc<Shared>) -> Result<Self, ConnectError> {
        let scripts = Scripts::new();
        let asks = node.connect(ANSWER).await?;
        let checked = check::check(&node, &asks, &shared, &scripts).await?;
        let appends = node.connect(ANSWER).await?;
        if check::run_id(&node, &appends).await? != checked.run_id {
            return Err(node.unavailable("leads to another server each time"));
        }
        Ok(Self {
            node,
            checked,
            appends,
            asks,
            scripts,
            shared,
            room: Arc::new(Semaphore::new(APPENDS)),
            broken: Arc::default(),
        })
    }

    fn append_commands(&self, entry: &Sealed) -> redis::Pipeline {
        let keys = &self.shared.keys;
        let begins = entry.begins.map(|begins| begins.epoch.to_string());
        let looked = entry.begins.map_or(0, |begins| begins.looked);
        let mut run = self.scripts.append.run(&[&keys.journal, &keys.meta]);
        run.arg(entry.epoch)
            .arg(begins.unwrap_or_default())
            .arg(looked)
            .arg(entry.time_ms)
            .arg(&entry.bytes[..]);
        let mut commands = pipe();
        commands.add_command(run);
        let replicas = self.shared.options.redis_wait;
        if replicas > 0 {
            commands
                .cmd("WAIT")
                .arg(replicas)
                .arg(REPLICAS.as_millis() as u64);
        }
        commands
    }

    /// Removes what is over the bounds.
    async fn trim(&self, now_ms: u64) -> Result<(), Fault> {
        let (keys, options) = (&self.shared.keys, &self.shared.options);
        for _ in 0..TRIMS {
            let mut run = self.scripts.trim.run(&[&keys.journal, &keys.meta]);
            run.arg(now_ms)
                .arg(options.age_max_ms)
                .arg(options.bytes_max)
                .arg(TRIM_POSITIONS);
            let removed = match self.asks.ask(run).await? {
                Value::ServerError(error) if fault::refuses_writes(&error) => None,
                answer => reply::number(answer)?,
            };
            if removed.unwrap_or(0) == 0 {
                break;
            }
        }
        Ok(())
    }
}

impl Session for RedisSession {
    fn entry_bytes_max(&self) -> usize {
        self.checked.entry_bytes_max
    }

    fn append<'a>(
        &'a self,
        entry: &'a Sealed,
    ) -> BoxFuture<'a, Result<Acknowledgement, AppendFault>> {
        Box::pin(async move {
            let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
                return Err(AppendFault::NotSent("the session is closed".to_owned()));
            };
            if let Some(fault) = self.broken.why.get() {
                return Err(AppendFault::NotSent(fault.to_string()));
            }
            let commands = self.append_commands(entry);
            let connection = self.appends.clone();
            let broken = Arc::clone(&self.broken);
            let replicas = self.shared.options.redis_wait;
            let answer = async move {
                let answers = tokio::select! {
                    biased;
                    answers = connection.send(&commands) => answers,
                    () = broken.given_up.cancelled(), if replicas > 0 => {
                        return Err(AppendFault::Unknown("replicas are missing".to_owned()));
                    }
                };
                drop(room);
                acknowledged(answers, replicas, &broken)
            };
            Ok(begun(Box::pin(coop::unconstrained(answer))).await)
        })
    }

    fn tail(&self, after: u64) -> BoxFuture<'_, Result<Box<dyn EntryTail>, Fault>> {
        Box::pin(async move {
            let tail = async {
                let connection = self.node.connect(RedisTail::ANSWER).await?;
                if check::run_id(&self.node, &connection).await? != self.checked.run_id {
                    return Err(self.node.unavailable("was restarted"));
                }
                Ok(connection)
            };
            let connection = match tokio::time::timeout(CONNECT, tail).await {
                Ok(connection) => connection.map_err(|error| Fault(error.to_string()))?,
                Err(_) => return Err(Fault("no connection in time".to_owned())),
            };
            let (keys, replicas) = (self.shared.keys.clone(), self.shared.options.redis_wait);
            let tail = RedisTail::new(connection, keys, replicas, after).await?;
            Ok(Box::new(tail) as Box<dyn EntryTail>)
        })
    }

    fn read(&self, position: u64) -> BoxFuture<'_, Result<Option<Bytes>, Fault>> {
        Box::pin(async move {
            let id = format!("{position}-0");
            let mut range = cmd("XRANGE");
            range.arg(&self.shared.keys.journal).arg(&id).arg(&id);
            let found = reply::entries(self.asks.ask(range).await?)?;
            Ok(found.into_iter().next().map(|entry| entry.bytes))
        })
    }

    fn ends(&self) -> BoxFuture<'_, Result<Ends, Fault>> {
        Box::pin(async {
            let keys = &self.shared.keys;
            let run = self.scripts.ends.run(&[&keys.journal, &keys.meta]);
            let [end, oldest, newest] = reply::array(self.asks.ask(run).await?)?;
            let end = reply::number(end)?.unwrap_or(0);
            let newest = reply::maybe_id(newest)?.map_or(0, |id| id.position);
            let last = end.max(newest);
            Ok(Ends {
                first: reply::maybe_id(oldest)?.map_or(last.saturating_add(1), |id| id.position),
                last,
                exact: true,
            })
        })
    }

    fn announce(&self, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let mut add = cmd("XADD");
            add.arg(&self.shared.keys.nodes)
                .arg(&["MAXLEN", "~"])
                .arg(ANNOUNCEMENTS)
                .arg(&["*", "e"])
                .arg(&bytes[..]);
            match self.asks.ask(add).await? {
                // It is lost, which is no reason to drop the session.
                Value::ServerError(error) if fault::refuses_writes(&error) => Ok(()),
                answer => reply::sound(answer).map(drop),
            }
        })
    }

    fn tend(&self) -> BoxFuture<'_, Result<Option<u64>, Fault>> {
        Box::pin(async {
            if let Some(fault) = self.broken.why.get() {
                return Err(fault.clone());
            }
            if !self.shared.connector.is_current(&self.node).await {
                return Err(Fault("Sentinel names another master".to_owned()));
            }
            let [seconds, micros] = reply::array(self.asks.ask(cmd("TIME")).await?)?;
            let (seconds, micros) = (reply::number(seconds)?, reply::number(micros)?);
            let now_ms = seconds.unwrap_or(0) * 1_000 + micros.unwrap_or(0) / 1_000;
            self.trim(now_ms).await?;
            Ok(Some(now_ms))
        })
    }
}

/// Polls a request once, by which it takes its place in the connection's queue.
pub(super) async fn begun<T: Send + 'static>(
    mut request: BoxFuture<'static, T>,
) -> BoxFuture<'static, T> {
    match poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await {
        Poll::Ready(answer) => Box::pin(ready(answer)),
        Poll::Pending => request,
    }
}

/// What the answers to an append mean.
fn acknowledged(
    answers: RedisResult<Vec<Value>>,
    replicas: u32,
    broken: &Broken,
) -> Result<Option<u64>, AppendFault> {
    let mut answers = match answers {
        Ok(answers) => answers.into_iter(),
        Err(error) => {
            let fault = Fault::from(error);
            let unknown = AppendFault::Unknown(fault.to_string());
            broken.why.get_or_init(|| fault);
            return Err(unknown);
        }
    };
    let position = match answers.next() {
        Some(Value::Int(position)) => position.unsigned_abs(),
        Some(Value::ServerError(error)) if error.code() == "FENCED" => {
            return Err(AppendFault::Fenced);
        }
        Some(Value::ServerError(error)) => {
            let fault = Fault::from(error.clone());
            let not_sent = AppendFault::NotSent(fault.to_string());
            // These do not pass: the node has become a replica, or has forgotten the script.
            if matches!(error.code(), "READONLY" | "NOSCRIPT") {
                broken.why.get_or_init(|| fault);
            }
            return Err(not_sent);
        }
        _ => return Err(AppendFault::Unknown("an unexpected answer".to_owned())),
    };
    if replicas > 0 {
        let have_it = match answers.next().map(reply::number) {
            Some(Ok(Some(have_it))) => have_it,
            _ => 0,
        };
        if have_it < u64::from(replicas) {
            let fault = Fault(format!(
                "{have_it} of {replicas} replicas have acknowledged an entry"
            ));
            let unknown = AppendFault::Unknown(fault.to_string());
            broken.why.get_or_init(|| fault);
            broken.given_up.cancel();
            return Err(unknown);
        }
    }
    Ok(Some(position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::{ErrorKind, RedisError, ServerError, parse_redis_value};

    fn error(line: &str) -> ServerError {
        match parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn answered(
        answers: RedisResult<Vec<Value>>,
        replicas: u32,
    ) -> (Result<Option<u64>, AppendFault>, bool) {
        let broken = Broken::default();
        let meant = acknowledged(answers, replicas, &broken);
        (meant, broken.why.get().is_some())
    }

    #[test]
    fn an_answer_is_the_position() {
        assert_eq!(answered(Ok(vec![Value::Int(7)]), 0), (Ok(Some(7)), false));
    }

    #[test]
    fn too_few_replicas_leave_it_unknown_and_break_the_session() {
        let of = |have_it| answered(Ok(vec![Value::Int(7), Value::Int(have_it)]), 2);
        assert_eq!(of(2), (Ok(Some(7)), false));
        assert!(matches!(of(1), (Err(AppendFault::Unknown(_)), true)));
        let changed = vec![
            Value::Int(7),
            Value::ServerError(error("UNBLOCKED force unblock")),
        ];
        assert!(matches!(
            answered(Ok(changed), 2),
            (Err(AppendFault::Unknown(_)), true)
        ));
    }

    #[test]
    fn what_the_server_refuses_was_not_stored() {
        for (line, breaks) in [
            ("OOM command not allowed", false),
            ("MISCONF errors writing to disk", false),
            ("NOREPLICAS not enough good replicas", false),
            ("LOADING dataset in memory", false),
            ("READONLY you can't write against a replica", true),
            ("NOSCRIPT no matching script", true),
        ] {
            let (meant, broken) = answered(Ok(vec![Value::ServerError(error(line))]), 0);
            assert_eq!(meant, Err(AppendFault::NotSent(line.to_owned())));
            assert_eq!(broken, breaks, "{line}");
        }
        let fenced = Value::ServerError(error("FENCED the journal is in another epoch"));
        assert_eq!(
            answered(Ok(vec![fenced]), 0),
            (Err(AppendFault::Fenced), false)
        );
    }

    #[test]
    fn what_was_not_answered_is_unknown_and_breaks_the_session() {
        let closed = RedisError::from((ErrorKind::Io, "closed"));
        let (meant, broken) = answered(Err(closed), 0);
        assert_eq!(
            meant,
            Err(AppendFault::Unknown("the connection is closed".to_owned()))
        );
        assert!(broken);
    }
}
