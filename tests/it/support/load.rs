//! Publishers and a reader that never give up, whatever becomes of the hub: for tests that kill it.

use super::{hub::Published, wait::in_time};
use reqwest::RequestBuilder;
use std::{
    collections::VecDeque, convert::Infallible, future::Future, mem, ops::RangeFrom, time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;

/// The data of the event after which a reader ends.
pub(crate) const END: &str = "end";

/// For the hub to answer, to be started again, or to deliver so many events, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// For a reader to get all that there is, and for publishers to settle all.
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(300);

/// Publishers of single events.
const SINGLES: usize = 4;
/// Events in an array.
const ARRAY: usize = 5;
/// Lines of the NDJSON request without a result yet.
const WINDOW: usize = 64;

/// The test's end of it.
pub(crate) struct Load {
    client: Client,
    starts: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

/// A publisher's or reader's end.
#[derive(Clone)]
struct Client {
    origin: String,
    http: reqwest::Client,
    /// How many times the hub was started.
    starts: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
    /// Batches answered with 2xx.
    answered: watch::Sender<u64>,
    /// Events delivered to readers.
    delivered: watch::Sender<u64>,
}

/// All that a publisher sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) name: String,
    /// In the order in which they were sent.
    pub(crate) batches: Vec<Sending>,
    /// Retries that were told that an earlier try had been stored.
    pub(crate) settled: usize,
}

/// Events sent together.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) data: Vec<String>,
    /// The hub's answer, if there was one.
    pub(crate) ids: Option<Vec<String>>,
}

/// What a reader got.
#[derive(Debug)]
pub(crate) struct Received {
    /// Id and data, in the order of delivery.
    pub(crate) events: Vec<(String, String)>,
    pub(crate) connections: u64,
}

impl Load {
    pub(crate) fn new(origin: String) -> Self {
        let ((starts, starts_seen), (stop, stop_seen)) = (watch::channel(0), watch::channel(false));
        // A connection per request: a kept one may belong to a hub that was killed.
        // It has no limit for all of a stream, but no stream is silent for so long.
        let http = reqwest::Client::builder().no_proxy().read_timeout(PATIENCE);
        let http = http.pool_max_idle_per_host(0).build().unwrap();
        Self {
            client: Client {
                origin,
                http,
                starts: starts_seen,
                stop: stop_seen,
                answered: watch::Sender::new(0),
                delivered: watch::Sender::new(0),
            },
            starts,
            stop,
        }
    }

    /// Waits for that many further answers.
    pub(crate) async fn answered_more(&self, count: u64) {
        let goal = *self.client.answered.borrow() + count;
        reaches(&self.client.answered, goal).await;
    }

    /// Waits until readers got that many further events.
    pub(crate) async fn delivered_more(&self, count: u64) {
        let goal = *self.client.delivered.borrow() + count;
        reaches(&self.client.delivered, goal).await;
    }

    /// Waits until readers got so many events.
    pub(crate) async fn delivered_at_least(&self, count: usize) {
        reaches(&self.client.delivered, count as u64).await;
    }

    /// The first so many events of a stream, which must come at once.
    pub(crate) async fn read_some(&self, path: &str, count: usize) -> Vec<(String, String)> {
        let is_last = move |events: &[_]| events.len() == count;
        let read = self.client.clone().read(path.to_owned(), is_last);
        let some = format!("{count} events of {path}");
        in_time(PATIENCE_FOR_ALL, some, read).await.events
    }

    /// Tells publishers and readers that they may try again.
    pub(crate) fn started_again(&mut self) {
        self.starts.send_modify(|starts| *starts += 1);
    }

    /// Has publishers end, once what they sent is settled.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// A reader that resumes until it gets [`END`].
    pub(crate) fn spawn_reader(&self, path: &str) -> impl Future<Output = Received> + use<> {
        let mut task = JoinSet::new();
        let is_last = |events: &[(_, String)]| events.last().is_some_and(|(_, data)| data == END);
        task.spawn(self.client.clone().read(path.to_owned(), is_last));
        let path = path.to_owned();
        async move {
            let ended = task.join_next();
            let ended = in_time(PATIENCE_FOR_ALL, format!("the end of {path}"), ended);
            ended.await.unwrap().unwrap()
        }
    }

    /// All kinds of publishers, to topics below `load/`.
    pub(crate) fn spawn_publishers(&self) -> impl Future<Output = Vec<Sent>> + use<> {
        let mut tasks = JoinSet::new();
        for n in 0..SINGLES {
            tasks.spawn(self.client.clone().singles(format!("single-{n}")));
        }
        for (name, keys) in [("array-with-keys", true), ("array-without", false)] {
            tasks.spawn(self.client.clone().arrays(name.to_owned(), keys));
        }
        tasks.spawn(self.client.clone().lines("ndjson".to_owned()));
        in_time(PATIENCE_FOR_ALL, "publishers that end", all(tasks))
    }
}

/// The first that fails fails the test at once.
async fn all(mut tasks: JoinSet<Sent>) -> Vec<Sent> {
    let mut all = Vec::new();
    while let Some(sent) = tasks.join_next().await {
        all.push(sent.unwrap());
    }
    all
}

async fn reaches(counter: &watch::Sender<u64>, goal: u64) {
    let mut counter = counter.subscribe();
    let reached = counter.wait_for(|now| *now >= goal);
    let reached = in_time(PATIENCE, format!("{goal} of the load"), reached);
    reached.await.unwrap();
}

/// Of different lengths, and told apart by its beginning.
fn data(name: &str, n: usize, part: usize) -> String {
    let rest = "x".repeat(if n.is_multiple_of(5) { 4_000 } else { 60 });
    format!("{name} {n} {part} {rest}")
}

fn json(name: &str, data: &str, key: Option<String>) -> serde_json::Value {
    let topic = format!("load/{name}");
    match key {
        Some(key) => serde_json::json!({"topic": topic, "data": data, "idempotency_key": key}),
        None => serde_json::json!({"topic": topic, "data": data}),
    }
}

impl Client {
    fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        let stop = self.stop.clone();
        let all: RangeFrom<usize> = 0..;
        all.take_while(move |_| !*stop.borrow())
    }

    /// Waits for a start of the hub after that one.
    async fn started_after(&mut self, start: u64) {
        let started = self.starts.wait_for(|now| *now > start);
        let started = in_time(PATIENCE, "a start after a connection was lost", started);
        started.await.unwrap();
    }

    fn post(&self, path: &str, kind: &str, body: String) -> RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.origin));
        request.header("Content-Type", kind).body(body)
    }

    /// Asks until there is an answer, or only once; gives it and the number of tries.
    async fn ask(
        &mut self,
        again: bool,
        request: impl Fn(&Self) -> RequestBuilder,
    ) -> Option<(u16, String, usize)> {
        for tries in 1.. {
            let start = *self.starts.borrow();
            let answer = async {
                let response = request(self).send().await?;
                Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
            };
            match answer.await {
                Ok((status, text)) => {
                    assert!(matches!(status, 200 | 201), "{status}: {text}");
                    self.answered.send_modify(|count| *count += 1);
                    return Some((status, text, tries));
                }
                Err(_) => self.started_after(start).await,
            }
            if !again {
                return None;
            }
        }
        None
    }

    async fn singles(mut self, name: String) -> Sent {
        let mut sent = Sent::new(&name);
        for n in self.numbers() {
            let data = data(&name, n, 0);
            let request = |client: &Self| {
                let path = format!("/topics/load/{name}");
                let request = client.post(&path, "text/plain", data.clone());
                request.header("Idempotency-Key", format!("{name}-{n}"))
            };
            let answer = self.ask(true, request).await;
            let (status, text, tries) = answer.unwrap();
            let published: Published = serde_json::from_str(&text).unwrap();
            assert_eq!(status == 200, published.duplicate);
            sent.settle(vec![data], vec![published], tries);
        }
        sent
    }

    async fn arrays(mut self, name: String, keys: bool) -> Sent {
        let mut sent = Sent::new(&name);
        for n in self.numbers() {
            let data: Vec<_> = (0..ARRAY).map(|part| data(&name, n, part)).collect();
            let events = data.iter().enumerate().map(|(part, data)| {
                let key = keys.then(|| format!("{n}-{part}"));
                json(&name, data, key)
            });
            let body = serde_json::Value::from_iter(events).to_string();
            let request = |client: &Self| client.post("/publish", "application/json", body.clone());
            match self.ask(keys, request).await {
                Some((status, text, tries)) => {
                    let published: Vec<Published> = serde_json::from_str(&text).unwrap();
                    let known = published.iter().filter(|one| one.duplicate).count();
                    assert!(known == 0 || known == ARRAY, "torn: {text}");
                    assert_eq!(status == 200, known == ARRAY);
                    sent.settle(data, published, tries);
                }
                None => sent.batches.push(Sending { data, ids: None }),
            }
        }
        sent
    }

    /// One request for as long as the hub lives; what has no result when it dies is sent again.
    async fn lines(mut self, name: String) -> Sent {
        let mut sent = Sent::new(&name);
        let mut numbers = self.numbers();
        // Data, line, and how often it was sent.
        let mut pending: VecDeque<(String, String, usize)> = VecDeque::new();
        loop {
            let start = *self.starts.borrow();
            let (lines, body) = mpsc::channel::<Result<String, Infallible>>(2 * WINDOW);
            let request = self.post("/publish", "application/x-ndjson", String::new());
            let body = reqwest::Body::wrap_stream(ReceiverStream::new(body));
            let Ok(mut response) = request.body(body).send().await else {
                self.started_after(start).await;
                continue;
            };
            assert_eq!(response.status(), 200);
            let (mut unsent, mut text) = (0, Vec::new());
            loop {
                while pending.len() < WINDOW
                    && let Some(n) = numbers.next()
                {
                    let data = data(&name, n, 0);
                    let line = format!("{}\n", json(&name, &data, Some(n.to_string())));
                    pending.push_back((data, line, 0));
                }
                if pending.is_empty() {
                    return sent;
                }
                for (_, line, tries) in pending.iter_mut().skip(unsent) {
                    *tries += 1;
                    // Refused if the connection is gone, which the answer will show.
                    let _ = lines.send(Ok(line.clone())).await;
                }
                unsent = pending.len();
                let Ok(Some(more)) = response.chunk().await else {
                    break;
                };
                text.extend_from_slice(&more);
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let published: Published = serde_json::from_slice(&line).unwrap();
                    let (data, _, tries) = pending.pop_front().unwrap();
                    sent.settle(vec![data], vec![published], tries);
                    self.answered.send_modify(|count| *count += 1);
                    unsent -= 1;
                }
            }
            self.started_after(start).await;
        }
    }

    async fn read(
        mut self,
        path: String,
        is_last: impl Fn(&[(String, String)]) -> bool,
    ) -> Received {
        let (mut events, mut connections) = (Vec::<(String, String)>::new(), 0);
        loop {
            let start = *self.starts.borrow();
            let mut request = self.http.get(format!("{}{path}", self.origin));
            if let Some((id, _)) = events.last() {
                request = request.header("Last-Event-ID", id);
            }
            let Ok(mut response) = request.send().await else {
                self.started_after(start).await;
                continue;
            };
            assert_eq!(response.status(), 200);
            connections += 1;
            let mut text = String::new();
            // What is cut off in mid-block is no message.
            while let Ok(Some(more)) = response.chunk().await {
                text.push_str(std::str::from_utf8(&more).unwrap());
                let whole = text.rfind("\n\n").map_or(0, |end| end + 2);
                let rest = text.split_off(whole);
                for block in mem::replace(&mut text, rest).split_terminator("\n\n") {
                    events.push(message(block));
                    self.delivered.send_modify(|count| *count += 1);
                    if is_last(&events) {
                        return Received {
                            events,
                            connections,
                        };
                    }
                }
            }
            self.started_after(start).await;
        }
    }
}

/// Id and data of a block that must be an event without a name.
fn message(block: &str) -> (String, String) {
    let (mut id, mut data) = (None, None);
    for line in block.lines() {
        match line.split_once(": ").unwrap() {
            ("id", value) => id = Some(value.to_owned()),
            ("data", value) => data = Some(value.to_owned()),
            // Comments begin with a colon.
            ("retry" | "", _) => {}
            _ => panic!("not expected: {block:?}"),
        }
    }
    (id.unwrap(), data.unwrap())
}

impl Sent {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            batches: Vec::new(),
            settled: 0,
        }
    }

    fn settle(&mut self, data: Vec<String>, published: Vec<Published>, tries: usize) {
        assert_eq!(data.len(), published.len());
        for one in &published {
            assert_eq!(one.topic, format!("load/{}", self.name));
            assert!(tries > 1 || !one.duplicate, "stored before it was sent");
            self.settled += usize::from(one.duplicate);
        }
        let ids = published.into_iter().map(|one| one.id).collect();
        let ids = Some(ids);
        self.batches.push(Sending { data, ids });
    }
}
