//! `tidings subscribe`: prints events as they come, over as many connections as it takes.

use super::{
    SubscribeArgs, block_on,
    client::{Base, client, problem, unreachable, with_query},
    sse::{Block, Decoder, Item},
    tell,
};
use anyhow::anyhow;
use reqwest::{Client, Response, StatusCode};
use std::{
    io::{self, BufWriter, Write},
    os::fd::AsFd as _,
    process::ExitCode,
    time::Duration,
};
use tidings::topic::Filter;
use tokio::{io::Interest, net::unix::pipe::Sender, time::timeout};

/// Silence after which a connection counts as dead: three keepalives of the hub's default.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// What the wait before a connection grows to while the hub stays away.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Prints events until standard output is closed.
pub(super) fn run(args: SubscribeArgs) -> anyhow::Result<ExitCode> {
    let base = args.at.base()?;
    let filter = Filter::parse(args.topics.iter().map(String::as_str));
    filter.map_err(|(text, error)| anyhow!("{text:?}: {error}"))?;
    let reader = Reader {
        client: client()?,
        base,
        last_id: args.last_event_id.clone(),
        args,
        retry: Duration::from_secs(2),
    };
    block_on(async {
        tokio::select! {
            () = output_closed() => Ok(ExitCode::SUCCESS),
            result = reader.run() => result,
        }
    })
}

/// Resolves when nobody can read standard output any more, so that `| head -2` ends with its second line and
/// not with the event after it. Never where the kernel does not tell, as with a file.
async fn output_closed() {
    // A pipe's sender that is only waited for, never written to: it need not be non-blocking, which
    // would hold for what we print, too.
    let copy = io::stdout().as_fd().try_clone_to_owned();
    if let Ok(output) = copy.and_then(Sender::from_owned_fd_unchecked)
        && output.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

struct Reader {
    client: Client,
    base: Base,
    args: SubscribeArgs,
    /// All up to here is printed.
    last_id: Option<String>,
    /// How long the hub wants a reader to wait before it comes back.
    retry: Duration,
}

/// Why a connection ended.
enum End {
    /// Nobody reads what is printed.
    OutputClosed,
    /// Connect again.
    Lost(anyhow::Error),
    /// The hub refuses, and would again.
    Refused(anyhow::Error),
}

impl Reader {
    async fn run(mut self) -> anyhow::Result<ExitCode> {
        let mut connected = false;
        let mut failures = 0;
        loop {
            let end = match self.connect().await {
                Ok(response) => {
                    connected = true;
                    failures = 0;
                    self.read(response).await
                }
                Err(end) => end,
            };
            match end {
                End::OutputClosed => return Ok(ExitCode::SUCCESS),
                End::Refused(error) => return Err(error),
                // At the first try it is more likely a wrong address than an outage.
                End::Lost(error) if !connected => return Err(error),
                End::Lost(error) => {
                    let wait = wait(self.retry, failures);
                    tell(format_args!(
                        "{error:#}; connecting again in {:.1} s",
                        wait.as_secs_f64()
                    ));
                    tokio::time::sleep(wait).await;
                    failures += 1;
                }
            }
        }
    }

    async fn connect(&self) -> Result<Response, End> {
        let args = &self.args;
        let tail = args.tail.map(|tail| tail.to_string());
        let mut query: Vec<_> = args
            .topics
            .iter()
            .map(|topic| ("topic", topic.as_str()))
            .collect();
        // The first id comes with the first event, and the connection may be lost before that.
        query.push(("open", "1"));
        if args.json {
            query.push(("frame", "envelope"));
        }
        if self.last_id.is_none() {
            query.extend(args.since.as_deref().map(|since| ("since", since)));
            query.extend(tail.as_deref().map(|tail| ("tail", tail)));
        }
        let request = self.client.get(with_query(&self.base.events(), &query));
        let mut request = request.header("Accept", "text/event-stream");
        if let Some(id) = &self.last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = match timeout(SILENCE_MAX, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_builder() => {
                return Err(End::Refused(anyhow!(error).context("cannot ask for that")));
            }
            Ok(Err(error)) => return Err(End::Lost(unreachable(&self.base, &error))),
            Err(_) => return Err(End::Lost(anyhow!("{} does not answer", self.base))),
        };
        let status = response.status();
        let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        if status.is_server_error() || passing.contains(&status) {
            return Err(End::Lost(problem(&self.base, response).await));
        }
        let kind = response.headers().get("content-type");
        let streams = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if status != StatusCode::OK || !streams {
            return Err(End::Refused(problem(&self.base, response).await));
        }
        Ok(response)
    }

    async fn read(&mut self, mut response: Response) -> End {
        let mut decoder = Decoder::default();
        loop {
            let chunk = match timeout(SILENCE_MAX, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return End::Lost(anyhow!("the hub ended the stream")),
                Ok(Err(error)) => return End::Lost(unreachable(&self.base, &error)),
                Err(_) => {
                    let silence_s = SILENCE_MAX.as_secs();
                    return End::Lost(anyhow!("the hub was silent for {silence_s} s"));
                }
            };
            let items = decoder.push(&chunk);
            match self.print(items, &mut BufWriter::new(io::stdout().lock())) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return End::OutputClosed;
                }
                Err(error) => {
                    return End::Refused(anyhow!(error).context("cannot write to standard output"));
                }
            }
        }
    }

    fn print(&mut self, items: Vec<Item>, out: &mut impl Write) -> io::Result<()> {
        for item in items {
            match item {
                Item::Retry(retry) => self.retry = retry,
                Item::Block(block) => self.print_block(block, out)?,
            }
        }
        out.flush()
    }

    fn print_block(&mut self, block: Block, out: &mut impl Write) -> io::Result<()> {
        let data = block.data.as_deref();
        match (block.event.as_str(), data) {
            ("tidings.gap", Some(data)) if self.args.json => writeln!(out, "{{\"gap\":{data}}}")?,
            ("tidings.gap", Some(data)) => tell(format_args!("gap: {}", gap_in_words(data))),
            ("tidings.close", Some(data)) => tell(format_args!("closed by the hub: {data}")),
            (event, Some(data)) if !event.starts_with("tidings.") => writeln!(out, "{data}")?,
            _ => {}
        }
        if let Some(id) = block.id {
            self.last_id = Some(id);
        }
        Ok(())
    }
}

/// How long to wait after a connection was lost, or after so many failures to connect since: what the hub
/// asks for, doubled each time, and up to half as much again at random, so that not all readers
/// come back at once.
fn wait(retry: Duration, failures: u32) -> Duration {
    let doubled = retry.max(Duration::from_millis(100)) * 2_u32.saturating_pow(failures.min(10));
    let wait = doubled.min(WAIT_MAX.max(retry));
    wait.mul_f64(rand::random_range(1.0..1.5))
}

/// What a gap's data says, for a person.
fn gap_in_words(data: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Gap {
        reason: String,
        missed: Option<u64>,
    }
    let Ok(gap) = serde_json::from_str::<Gap>(data) else {
        return data.to_owned();
    };
    let missed = match gap.missed {
        Some(missed) => format!("{missed} events are missing"),
        None => "events are missing".to_owned(),
    };
    format!("{missed} ({}): {data}", gap.reason)
}
