//! `tidings publish`: one event, or standard input line by line over one open request.

use super::{
    PublishArgs, block_on,
    client::{Base, Problem, client, problem, unreachable, with_query},
    tell,
};
use anyhow::Context as _;
use bytes::Bytes;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidings::topic::Topic;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_stream::Stream;

/// Publishes, and prints the ids.
pub(super) fn run(args: &PublishArgs) -> anyhow::Result<ExitCode> {
    let base = args.at.base()?;
    // Checked here too, because a URL with the segment `..` would mean another one.
    Topic::parse(&args.topic).with_context(|| format!("{:?} is no topic", args.topic))?;
    let from_stdin = args.data.as_ref().is_none_or(|data| data == "-");
    anyhow::ensure!(
        from_stdin || !args.lines,
        "--lines publishes standard input: leave out the data"
    );
    if from_stdin && io::stdin().is_terminal() {
        tell(format_args!("reading standard input; Ctrl-D ends it"));
    }
    block_on(async {
        let client = client()?;
        if args.lines {
            publish_lines(&client, &base, args).await
        } else {
            publish_one(&client, &base, args).await
        }
    })
}

/// What the hub says of an event: one of the two.
#[derive(Deserialize)]
struct Answer {
    id: Option<String>,
    #[serde(default)]
    duplicate: bool,
    error: Option<Problem>,
}

async fn publish_one(client: &Client, base: &Base, args: &PublishArgs) -> anyhow::Result<ExitCode> {
    let data = match args.data.as_deref() {
        None | Some("-") => {
            let mut data = Vec::new();
            let read = tokio::io::stdin().read_to_end(&mut data).await;
            read.context("cannot read standard input")?;
            data
        }
        Some(data) => data.as_bytes().to_vec(),
    };
    let retry = args.retry.map(|retry| retry.as_millis().to_string());
    let query = [
        ("event", args.event.as_deref()),
        ("own_id", args.own_id.as_deref()),
        ("retry", retry.as_deref()),
    ];
    let query: Vec<_> = query
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let mut request = client.post(with_query(&base.topic(&args.topic), &query));
    if let Some(key) = &args.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    let response = request.body(data).send().await;
    let response = response.map_err(|error| unreachable(base, &error))?;
    if !response.status().is_success() {
        return Err(problem(base, response).await);
    }
    let body = response.bytes().await;
    let body = body.map_err(|error| unreachable(base, &error))?;
    report(base, &body)
}

/// Prints what became of an event, and whether that is a success.
fn report(base: &Base, json: &[u8]) -> anyhow::Result<ExitCode> {
    let answer: Answer = serde_json::from_slice(json)
        .with_context(|| format!("cannot read the answer of {base}; is it a hub?"))?;
    if let Some(problem) = answer.error {
        tell(format_args!("{problem}"));
        return Ok(ExitCode::FAILURE);
    }
    if answer.duplicate {
        tell(format_args!(
            "published before under this key; not published again"
        ));
    }
    // The event is published, whether or not anybody wants to know its id.
    let _ = writeln!(io::stdout().lock(), "{}", answer.id.unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

async fn publish_lines(
    client: &Client,
    base: &Base,
    args: &PublishArgs,
) -> anyhow::Result<ExitCode> {
    let counts = Arc::new(Counts::default());
    let head = LineHead {
        topic: args.topic.clone(),
        event: args.event.clone(),
        retry: args
            .retry
            .map(|retry| u64::try_from(retry.as_millis()).unwrap_or(u64::MAX)),
    };
    let lines = ndjson(tokio::io::stdin(), head, Arc::clone(&counts));
    let request = client
        .post(base.publish())
        .header("Content-Type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(lines));
    let response = request.send().await;
    let mut response = response.map_err(|error| unreachable(base, &error))?;
    if !response.status().is_success() {
        return Err(problem(base, response).await);
    }
    let mut answered = 0;
    let mut failed = false;
    let mut rest = Vec::new();
    loop {
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|error| unreachable(base, &error));
        let Some(chunk) = chunk.with_context(|| counts.cut_off(answered))? else {
            break;
        };
        rest.extend_from_slice(&chunk);
        let end = memchr::memrchr(b'\n', &rest).map_or(0, |at| at + 1);
        for line in rest[..end]
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
        {
            failed |= report(base, line)? != ExitCode::SUCCESS;
            answered += 1;
        }
        rest.drain(..end);
    }
    if !rest.is_empty() {
        failed |= report(base, &rest)? != ExitCode::SUCCESS;
        answered += 1;
    }
    anyhow::ensure!(
        answered >= counts.sent.load(Ordering::Relaxed),
        "{}",
        counts.cut_off(answered)
    );
    failed |= counts.refused.load(Ordering::Relaxed) > 0;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Lines of standard input so far.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    fn cut_off(&self, answered: u64) -> String {
        let sent = self.sent.load(Ordering::Relaxed);
        format!("the hub ended the request after {answered} results for {sent} lines sent")
    }
}

/// What all lines have in common.
struct LineHead {
    topic: String,
    event: Option<String>,
    retry: Option<u64>,
}

/// A line on the wire.
#[derive(Serialize)]
struct LineDraft<'a> {
    topic: &'a str,
    data: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<u64>,
}

/// The input's lines as NDJSON, as they come: what one read gives goes out in one piece.
fn ndjson(
    mut input: impl AsyncRead + Unpin + Send + 'static,
    head: LineHead,
    counts: Arc<Counts>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    async_stream::stream! {
        let mut pending = Vec::with_capacity(64 << 10); // 64 KiB
        let mut number = 0;
        loop {
            let read = input.read_buf(&mut pending).await.unwrap_or_else(|error| {
                tell(format_args!("cannot read standard input: {error}"));
                counts.refused.fetch_add(1, Ordering::Relaxed);
                0
            });
            // A last line counts without its end, too.
            if read == 0 && !pending.is_empty() {
                pending.push(b'\n');
            }
            let end = memchr::memrchr(b'\n', &pending).map_or(0, |at| at + 1);
            let mut out = Vec::with_capacity(2 * end);
            for line in pending[..end].split_inclusive(|b| *b == b'\n') {
                number += 1;
                let counter = match encode(line, number, &head, &mut out) {
                    true => &counts.sent,
                    false => &counts.refused,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            pending.drain(..end);
            if !out.is_empty() {
                yield Ok(Bytes::from(out));
            }
            if read == 0 {
                break;
            }
        }
    }
}

/// Appends a line's JSON, unless it is not text.
fn encode(line: &[u8], number: u64, head: &LineHead, out: &mut Vec<u8>) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Ok(data) = std::str::from_utf8(line) else {
        tell(format_args!("line {number} is not UTF-8: not published"));
        return false;
    };
    let draft = LineDraft {
        topic: &head.topic,
        data,
        event: head.event.as_deref(),
        retry: head.retry,
    };
    let written = serde_json::to_writer(&mut *out, &draft).is_ok();
    out.push(b'\n');
    written
}
