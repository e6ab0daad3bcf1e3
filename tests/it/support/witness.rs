//! A hub with a reader of everything, to show that what was refused harmed nothing and left nothing.

use super::{
    server::{Answer, TestServer},
    stream::Stream,
};
use std::ops::Deref;
use tidings::config::Config;

/// A hub in use: one stream was open before anything went wrong.
pub(crate) struct Witness {
    server: TestServer,
    stream: Stream,
    /// All that may be in the log.
    good: Vec<String>,
}

impl Witness {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(turn: impl FnOnce(&mut Config)) -> Self {
        let server = TestServer::with(turn).await;
        let stream = server.subscribe("/events?topic=**").await;
        assert_eq!(stream.status(), 200);
        Self {
            server,
            stream,
            good: Vec::new(),
        }
    }

    /// Publishes one more event: the stream that was open before gets exactly it, and a reader from the beginning
    /// sees nothing but events that were meant to be there.
    pub(crate) async fn unharmed(&mut self, after: &str) {
        let sentinel = format!("sentinel {}", self.good.len());
        self.server.publish("witness", sentinel.as_str()).await;
        self.expect(&[&sentinel], after).await;
        let mut all = self
            .server
            .subscribe("/events?topic=**&since=earliest")
            .await;
        assert_eq!(all.data(self.good.len()).await, self.good, "after {after}");
    }

    /// The stream gets these next, and they stay.
    pub(crate) async fn expect(&mut self, data: &[&str], after: &str) {
        let got = self.stream.data(data.len()).await;
        assert_eq!(got, data, "after {after}");
        self.good.extend(got);
    }

    pub(crate) async fn stop(self) {
        drop(self.stream);
        self.server.stop().await;
    }
}

impl Deref for Witness {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.server
    }
}

/// What a request is answered: its status, kind of problem, and words that its detail has.
pub(crate) type Expected<'a> = (u16, &'a str, &'a str);

/// Checks a problem, and what all problems have.
pub(crate) fn check(answer: &Answer, (status, kind, words): Expected<'_>, request: &str) {
    assert_eq!(answer.status, status, "{request}: {answer:?}");
    assert_eq!(answer.problem(), kind, "{request}: {answer:?}");
    let json = answer.json();
    let detail = json["detail"].as_str().unwrap();
    assert!(
        detail.contains(words),
        "{request}: {detail:?} without {words:?}"
    );
    assert!(
        detail.len() < 600,
        "{request}: repeats too much of the request"
    );
    let vary = answer.header("vary").unwrap_or_default();
    assert_eq!(vary.to_ascii_lowercase(), "accept, origin", "{request}");
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store"),
        "{request}"
    );
}
