//! `tidings bench publish --lines`: one request of NDJSON, written as fast as it is taken.

use super::{
    args::{Interest, PublishArgs},
    fan::head,
    load::{Load, Shape},
    report::Report,
    response::Response,
    socket::write_some,
    stamp::Stamp,
    wait::Patience,
};
use anyhow::Context as _;
use mio::{Events, Interest as Ready, Poll, Token, net::TcpStream};
use serde::Deserialize;
use serde_json::json;
use std::{
    fmt::Write as _,
    io::{self, Read as _},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Lines in one chunk.
const CHUNK_LINES: u32 = 256;

/// The hub's last line.
#[derive(Deserialize)]
struct LastLine {
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    stored: u64,
}

pub(super) fn run(args: &PublishArgs) -> anyhow::Result<ExitCode> {
    let shape = Shape {
        readers: 0,
        topics: 1,
        topic_end: String::new(),
        connections: 1,
        interest: Interest::default(),
        array: None,
    };
    anyhow::ensure!(args.sending.rate.is_none(), "--lines has no --rate");
    let mut load = Load::new(&args.target, &shape)?;
    let until = args.sending.seconds.unwrap_or(Duration::from_secs(5));
    let events = args.sending.events;
    let until = if events.is_some() && args.sending.seconds.is_none() {
        Duration::MAX
    } else {
        until
    };

    let before = load.snapshot();
    let (sent, answer) = stream(&mut load, events.unwrap_or(u64::MAX), until)?;
    let lines: Vec<&str> = answer.lines().collect();
    let summary = lines
        .last()
        .and_then(|line| serde_json::from_str::<LastLine>(line).ok());
    let summary = summary.with_context(|| format!("expected a summary, and got {answer:?}"))?;
    let stored = summary.summary.stored;
    load.meter.published = stored;
    load.meter.refused = sent.saturating_sub(stored);
    let measured = load.snapshot().since(&before);

    let mut report = Report::new("publish");
    head(&mut report, &load, &args.target);
    report.add("lines", json!(true));
    report.measured(&measured);
    report.faults(Default::default(), &load);
    Ok(report.print(args.target.json))
}

/// Sends lines until there are enough or it is time; gives how many, and the answer's body.
pub(super) fn stream(
    load: &mut Load,
    events: u64,
    limit: Duration,
) -> anyhow::Result<(u64, String)> {
    let (head, mut line) = load.hub.publish_lines(load.topic(0), load.size);
    let mut poll = Poll::new().context("cannot wait for sockets")?;
    let mut ready = Events::with_capacity(8);
    let stream = std::net::TcpStream::connect(load.hub.address);
    let stream = stream.with_context(|| format!("cannot connect to {}", load.hub.host()))?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry()
        .register(&mut stream, Token(0), Ready::READABLE | Ready::WRITABLE)?;

    let begun = Instant::now();
    let mut patience = Patience::new(load.patience());
    let mut response = Response::default();
    let mut answer = Vec::new();
    let (mut out, mut written, mut sent, mut ended) = (head, 0, 0, false);
    let mut buffer = vec![0; 64 << 10]; // 64 KiB
    loop {
        loop {
            written += write_some(&mut stream, &out[written..])?;
            if written < out.len() || ended {
                break;
            }
            out.clear();
            written = 0;
            ended = sent >= events || begun.elapsed() >= limit;
            if ended {
                out.extend_from_slice(b"0\r\n\r\n");
            } else {
                let count = events.saturating_sub(sent).min(u64::from(CHUNK_LINES)) as u32;
                chunk(
                    load,
                    &mut line.bytes,
                    line.data_at[0],
                    sent as u32,
                    count,
                    &mut out,
                );
                sent += u64::from(count);
            }
        }
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => anyhow::bail!("the hub ended the connection"),
                Ok(count) => {
                    response.feed(&buffer[..count], |body| answer.extend_from_slice(body))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if response.is_done() {
            let status = response.status().unwrap_or(0);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            anyhow::ensure!(status == 200, "the hub answered {status}: {answer}");
            return Ok((sent, answer));
        }
        patience.check(sent, || "the hub took no line".to_owned())?;
        if let Err(error) = poll.poll(&mut ready, Some(Duration::from_millis(100)))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
    }
}

/// Appends a chunk of that many lines.
fn chunk(load: &Load, line: &mut [u8], data_at: usize, from: u32, count: u32, out: &mut Vec<u8>) {
    let mut size = String::new();
    let _ = write!(size, "{:x}\r\n", line.len() * count as usize);
    out.extend_from_slice(size.as_bytes());
    let time_ns = load.now_ns();
    for seq in from..from.wrapping_add(count) {
        load.marker.write(
            &mut line[data_at..],
            Stamp {
                lane: 0,
                seq,
                time_ns,
            },
        );
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\r\n");
}
