//! The JetStream stream of a journal: made if it is not there, and checked if it is. Knows no entries.

use super::link::{Link, RequestFault};
use crate::cluster::journal::{ConnectError, Ends, Fault, JournalOptions};
use async_nats::jetstream::ErrorCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// How long the broker knows the ids of entries, to store what is sent twice once: 2 min.
const DUPLICATES_NS: i64 = 120_000_000_000;

/// What the broker adds to an entry: the header with its id, and what little a later version may add.
const HEADERS_BYTES: usize = 256;

/// The least that entries must be allowed: 256 KiB, which a group may have.
const ENTRY_BYTES: usize = 256 << 10;

const NS_PER_S: i64 = 1_000_000_000;

/// The least age that JetStream knows: 100 ms.
const AGE_MIN_MS: u64 = 100;

/// The stream that a journal needs.
pub(super) struct Stream {
    pub(super) name: String,
    /// Of the entries.
    pub(super) subject: String,
    age_ns: i64,
    bytes: i64,
    replicas: usize,
}

/// A stream as the broker tells it, without its settings.
#[derive(Deserialize)]
pub(super) struct Info {
    state: State,
    /// The broker's clock, RFC 3339: since 2.10.
    ts: Option<String>,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    first_seq: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Found {
    config: Value,
}

/// What of a stream's settings can break the journal's promises. What is missing, an older server does not know.
#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    subjects: Vec<String>,
    retention: String,
    storage: String,
    discard: String,
    num_replicas: usize,
    #[serde(default)]
    max_consumers: i64,
    #[serde(default)]
    max_msgs: i64,
    #[serde(default)]
    max_msgs_per_subject: i64,
    #[serde(default)]
    max_msg_size: i64,
    #[serde(default)]
    max_age: i64,
    #[serde(default)]
    max_bytes: i64,
    #[serde(default)]
    duplicate_window: i64,
    #[serde(default)]
    no_ack: bool,
    #[serde(default)]
    sealed: bool,
    #[serde(default)]
    allow_msg_counter: bool,
    mirror: Option<Value>,
    sources: Option<Value>,
    subject_transform: Option<Value>,
    persist_mode: Option<String>,
}

impl Stream {
    pub(super) fn new(options: &JournalOptions) -> Self {
        let age_ms = options.age_max_ms.max(AGE_MIN_MS);
        Self {
            name: format!("tidings_{}", options.name),
            subject: format!("tidings.{}.journal", options.name),
            age_ns: i64::try_from(age_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX),
            bytes: i64::try_from(options.bytes_max.max(1)).unwrap_or(i64::MAX),
            replicas: options.nats_replicas,
        }
    }

    /// Makes the stream or checks it, and gives what an entry may have in bytes.
    pub(super) async fn open(&self, link: &Link) -> Result<usize, ConnectError> {
        let found = match self.request::<Found>(link, "INFO", &json!({})).await {
            Err(RequestFault::Answered(error))
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                self.create(link).await
            }
            answer => answer,
        };
        let config = found.map_err(|fault| self.no_stream(link, fault))?.config;
        let settings = Settings::deserialize(&config).map_err(|error| {
            ConnectError::Refused(format!(
                "the settings of stream {} at {} cannot be read: {error}",
                self.name, link.server
            ))
        })?;
        let payload_max = link.client.max_payload();
        let differences = self.differences(&settings, payload_max);
        if !differences.is_empty() {
            return Err(ConnectError::Refused(format!(
                "stream {} at {} was made with other settings. Change {}; or delete it, and all it holds",
                self.name,
                link.server,
                differences.join(", ")
            )));
        }
        if (settings.max_age, settings.max_bytes) != (self.age_ns, self.bytes) {
            self.rebound(link, config, &settings).await;
        }
        let bytes_max = usize::try_from(settings.max_msg_size)
            .ok()
            .filter(|&bytes| bytes > 0)
            .map_or(payload_max, |bytes| bytes.min(payload_max));
        Ok(bytes_max.saturating_sub(HEADERS_BYTES))
    }

    /// What the broker says of the stream now.
    pub(super) async fn info(&self, link: &Link) -> Result<Info, RequestFault> {
        self.request(link, "INFO", &json!({})).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        link: &Link,
        verb: &str,
        body: &Value,
    ) -> Result<T, RequestFault> {
        link.request(format!("STREAM.{verb}.{}", self.name), body)
            .await
    }

    async fn create(&self, link: &Link) -> Result<Found, RequestFault> {
        // No field that 2.9 does not know: later servers refuse those that they do not know themselves.
        let made = self
            .request(
                link,
                "CREATE",
                &json!({
                    "name": self.name,
                    "subjects": [self.subject],
                    "retention": "limits",
                    "storage": "file",
                    "discard": "old",
                    "num_replicas": self.replicas,
                    "max_age": self.age_ns,
                    "max_bytes": self.bytes,
                    "duplicate_window": DUPLICATES_NS.min(self.age_ns),
                    "max_consumers": -1,
                    "max_msgs": -1,
                    "max_msgs_per_subject": -1,
                    "max_msg_size": -1,
                }),
            )
            .await;
        match made {
            // Another node was faster, with other bounds.
            Err(RequestFault::Answered(error))
                if error.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                self.request(link, "INFO", &json!({})).await
            }
            answer => answer,
        }
    }

    /// Each setting that breaks a promise, and what it has to be.
    fn differences(&self, settings: &Settings, payload_max: usize) -> Vec<String> {
        let mut differences = Vec::new();
        let mut expect = |holds: bool, name: &str, is: String, must: String| {
            if !holds {
                differences.push(format!("{name} from {is} to {must}"));
            }
        };
        expect(
            settings.subjects == [self.subject.as_str()],
            "subjects",
            format!("{:?}", settings.subjects),
            format!("{:?}", [&self.subject]),
        );
        for (name, is, must) in [
            ("retention", &settings.retention, "limits"),
            ("storage", &settings.storage, "file"),
            ("discard", &settings.discard, "old"),
        ] {
            expect(is == must, name, is.clone(), must.to_owned());
        }
        expect(
            settings.num_replicas == self.replicas,
            "num_replicas",
            settings.num_replicas.to_string(),
            format!("{} (or the hub's nats_replicas)", self.replicas),
        );
        for (name, limit) in [
            ("max_msgs", settings.max_msgs),
            ("max_msgs_per_subject", settings.max_msgs_per_subject),
            ("max_consumers", settings.max_consumers),
        ] {
            expect(limit <= 0, name, limit.to_string(), "-1".to_owned());
        }
        let size_min = (ENTRY_BYTES + HEADERS_BYTES).min(payload_max);
        expect(
            settings.max_msg_size <= 0
                || usize::try_from(settings.max_msg_size).is_ok_and(|size| size >= size_min),
            "max_msg_size",
            settings.max_msg_size.to_string(),
            format!("-1, or at least {size_min}"),
        );
        for (name, is) in [
            ("no_ack", settings.no_ack),
            ("sealed", settings.sealed),
            ("allow_msg_counter", settings.allow_msg_counter),
        ] {
            expect(!is, name, "true".to_owned(), "false".to_owned());
        }
        for (name, is) in [
            ("mirror", &settings.mirror),
            ("sources", &settings.sources),
            ("subject_transform", &settings.subject_transform),
        ] {
            let is = is.as_ref().map(Value::to_string);
            expect(
                is.is_none(),
                name,
                is.unwrap_or_default(),
                "none".to_owned(),
            );
        }
        let persist_mode = settings.persist_mode.as_deref().unwrap_or("default");
        expect(
            persist_mode != "async",
            "persist_mode",
            persist_mode.to_owned(),
            "default".to_owned(),
        );
        differences
    }

    /// Gives the stream the journal's age and bytes. It is as good without, so that a refusal is only told.
    async fn rebound(&self, link: &Link, mut config: Value, settings: &Settings) {
        config["max_age"] = json!(self.age_ns);
        config["max_bytes"] = json!(self.bytes);
        config["duplicate_window"] = json!(settings.duplicate_window.min(self.age_ns));
        let changed = self.request::<Found>(link, "UPDATE", &config).await;
        let (stream, bytes, bytes_before) = (&self.name, self.bytes, settings.max_bytes);
        let (age_s, age_before_s) = (self.age_ns / NS_PER_S, settings.max_age / NS_PER_S);
        match changed {
            Ok(_) => tracing::info!(
                stream,
                age_before_s,
                age_s,
                bytes_before,
                bytes,
                "gave the stream the journal's bounds"
            ),
            Err(fault) => tracing::warn!(
                stream,
                age_s = age_before_s,
                age_wanted_s = age_s,
                bytes = bytes_before,
                bytes_wanted = bytes,
                "the stream keeps bounds that are not the journal's: {}",
                fault.fault(link)
            ),
        }
    }

    /// Tells what only somebody can mend from what may pass.
    fn no_stream(&self, link: &Link, fault: RequestFault) -> ConnectError {
        let server = &link.server;
        match fault {
            // In a cluster it may be on a server whose route is not up yet.
            RequestFault::NobodyThere if link.client.server_info().cluster.is_none() => {
                ConnectError::Refused(format!(
                    "JetStream is not enabled at {server}: start nats-server with -js, or with jetstream {{}} in its configuration"
                ))
            }
            RequestFault::Answered(error) if lasts(error.error_code()) => {
                ConnectError::Refused(format!("no stream {} at {server}: {error}", self.name))
            }
            fault => {
                let Fault(text) = fault.fault(link);
                match link.is_forbidden() {
                    true => ConnectError::Refused(text),
                    false => ConnectError::Unavailable(text),
                }
            }
        }
    }
}

impl Info {
    pub(super) fn ends(&self) -> Ends {
        let State {
            messages,
            first_seq,
            last_seq: last,
        } = self.state;
        Ends {
            first: if messages == 0 { last + 1 } else { first_seq },
            last,
            exact: true,
        }
    }

    /// The broker's clock in ms since 1970 UTC.
    pub(super) fn time_ms(&self) -> Option<u64> {
        let time: jiff::Timestamp = self.ts.as_deref()?.parse().ok()?;
        time.as_millisecond().try_into().ok()
    }
}

/// Whether an answer to a request for the stream stays the same until somebody changes something.
fn lasts(code: ErrorCode) -> bool {
    [
        ErrorCode::JETSTREAM_NOT_ENABLED,
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
        ErrorCode::STREAM_SUBJECT_OVERLAP,
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED,
        ErrorCode::STREAM_INVALID_CONFIG,
        ErrorCode::STREAM_LIMITS,
        ErrorCode::MAXIMUM_STREAMS_LIMIT,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ]
    .contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD_MAX: usize = 1 << 20; // 1 MiB, a server's default

    fn stream() -> Stream {
        Stream::new(&JournalOptions {
            name: "shop".to_owned(),
            age_max_ms: 60_000,
            bytes_max: 1 << 30,
            ca_file: None,
            password: None,
            redis_wait: 0,
            nats_replicas: 3,
        })
    }

    /// What 2.9 answers once it has made the stream.
    fn config() -> Value {
        json!({
            "name": "tidings_shop", "subjects": ["tidings.shop.journal"], "retention": "limits",
            "max_consumers": -1, "max_msgs": -1, "max_bytes": 1 << 30, "max_age": 60_000_000_000_i64,
            "max_msgs_per_subject": -1, "max_msg_size": -1, "discard": "old", "storage": "file",
            "num_replicas": 3, "duplicate_window": 60_000_000_000_i64, "sealed": false,
            "deny_delete": false, "deny_purge": true, "allow_rollup_hdrs": false
        })
    }

    fn differences(config: &Value) -> Vec<String> {
        stream().differences(&Settings::deserialize(config).unwrap(), PAYLOAD_MAX)
    }

    #[test]
    fn the_streams_own_settings_are_accepted() {
        assert!(differences(&config()).is_empty());
        let mut harmless = config();
        harmless["metadata"] = json!({ "_nats.level": "5" });
        harmless["max_msg_size"] = json!(ENTRY_BYTES + HEADERS_BYTES);
        harmless["compression"] = json!("s2");
        assert!(differences(&harmless).is_empty());
    }

    #[test]
    fn each_setting_that_breaks_a_promise_is_named_with_what_it_has_to_be() {
        for (name, is, text) in [
            (
                "subjects",
                json!(["a"]),
                r#"subjects from ["a"] to ["tidings.shop.journal"]"#,
            ),
            (
                "retention",
                json!("workqueue"),
                "retention from workqueue to limits",
            ),
            ("storage", json!("memory"), "storage from memory to file"),
            ("discard", json!("new"), "discard from new to old"),
            (
                "num_replicas",
                json!(1),
                "num_replicas from 1 to 3 (or the hub's nats_replicas)",
            ),
            ("max_msgs", json!(9), "max_msgs from 9 to -1"),
            (
                "max_msgs_per_subject",
                json!(1),
                "max_msgs_per_subject from 1 to -1",
            ),
            ("max_consumers", json!(2), "max_consumers from 2 to -1"),
            (
                "max_msg_size",
                json!(1000),
                "max_msg_size from 1000 to -1, or at least 262400",
            ),
            ("no_ack", json!(true), "no_ack from true to false"),
            ("sealed", json!(true), "sealed from true to false"),
            (
                "allow_msg_counter",
                json!(true),
                "allow_msg_counter from true to false",
            ),
            (
                "mirror",
                json!({ "name": "x" }),
                r#"mirror from {"name":"x"} to none"#,
            ),
            (
                "persist_mode",
                json!("async"),
                "persist_mode from async to default",
            ),
        ] {
            let mut changed = config();
            changed[name] = is;
            assert_eq!(differences(&changed), [text]);
        }
    }

    #[test]
    fn the_ends_are_told_of_what_is_kept() {
        for (messages, first_seq, last_seq, first, last) in [
            (0, 0, 0, 1, 0),
            (0, 101, 100, 101, 100),
            (3, 98, 100, 98, 100),
        ] {
            let state =
                json!({ "messages": messages, "first_seq": first_seq, "last_seq": last_seq });
            let info = Info::deserialize(json!({ "state": state, "ts": "2026-11-26T18:54:17.5Z" }));
            let info = info.unwrap();
            let exact = true;
            assert_eq!(info.ends(), Ends { first, last, exact });
            assert_eq!(info.time_ms(), Some(1_795_719_257_500));
            let silent = Info::deserialize(json!({ "state": state })).unwrap();
            assert_eq!(silent.time_ms(), None);
        }
    }
}
