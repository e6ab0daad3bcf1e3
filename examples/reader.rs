//! A reader that resumes: it keeps the last id it dealt with in a file, and goes on from there after a lost
//! connection, a restart of the hub, or its own. What the hub no longer has, it is told.
//!
//! `cargo run --example reader [URL TOPIC]`: without arguments it starts a hub of its own, restarts it half-way,
//! and ends after ten events.

use anyhow::Context;
use sse_stream::SseByteStream;
use std::{path::Path, time::Duration};
use tidings::{Server, config::Config, event::Draft, topic::Topic};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::StreamExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    if let (Some(url), Some(topic)) = (arguments.next(), arguments.next()) {
        let url = format!("{url}/topics/{topic}?since=earliest");
        return read(&url, Path::new("last-id"), &watch::Sender::new(0), u64::MAX).await;
    }
    let data = tempfile::tempdir()?;
    let config = Config {
        data_dir: data.path().to_owned(),
        ..Config::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let place = data.path().join("last-id");
    let url = format!("http://{address}/topics/news?since=earliest");
    let (seen, watched) = watch::channel(0);
    let (read, served) = tokio::join!(
        read(&url, &place, &seen, 10),
        restart_half_way(&config, listener, watched)
    );
    served?;
    read
}

/// Prints events until there were `count`, whatever happens to the connection meanwhile.
async fn read(
    url: &str,
    place: &Path,
    seen: &watch::Sender<u64>,
    count: u64,
) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let mut retry = Duration::from_millis(500);
    loop {
        // A clean end is no end of events, either: the hub went down, and comes back.
        match read_once(&client, url, place, seen, &mut retry, count).await {
            Ok(()) if *seen.borrow() >= count => return Ok(()),
            Ok(()) => show("the stream ended"),
            Err(error) => show(&format!("the connection was lost: {error:#}")),
        }
        tokio::time::sleep(retry).await;
    }
}

async fn read_once(
    client: &reqwest::Client,
    url: &str,
    place: &Path,
    seen: &watch::Sender<u64>,
    retry: &mut Duration,
    count: u64,
) -> anyhow::Result<()> {
    let mut request = client.get(url).header("Accept", "text/event-stream");
    if let Ok(last_id) = std::fs::read_to_string(place) {
        request = request.header("Last-Event-ID", last_id);
    }
    let answer = request.send().await?.error_for_status()?;
    let mut events = SseByteStream::new(answer.bytes_stream());
    while let Some(event) = events.next().await {
        let event = event.context("not an event stream")?;
        if let Some(ms) = event.retry {
            *retry = Duration::from_millis(ms);
        }
        let Some(data) = event.data else { continue };
        match event.event.as_deref() {
            Some("tidings.gap") => show(&format!("missed something: {data}")),
            Some(control) if control.starts_with("tidings.") => {}
            _ => {
                // First deal with the event, then note its id: so none is lost, and after a crash one may come again.
                show(&data);
                seen.send_modify(|seen| *seen += 1);
                if let Some(id) = event.id {
                    std::fs::write(place, id)?;
                }
            }
        }
        if *seen.borrow() >= count {
            return Ok(());
        }
    }
    Ok(())
}

/// A hub that publishes five events, goes down, comes back on the same log and address, and publishes five more.
async fn restart_half_way(
    config: &Config,
    listener: TcpListener,
    mut seen: watch::Receiver<u64>,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = Some(listener);
    for (from, to) in [(0, 5), (5, 10)] {
        let hub = Server::open(config).await?;
        let listener = match listener.take() {
            Some(listener) => listener,
            None => TcpListener::bind(address).await?,
        };
        let publish = async {
            for number in from..to {
                let draft = Draft::new(Topic::parse("news")?, format!("news number {number}"));
                hub.ingest().publish(vec![draft], true).await?;
            }
            seen.wait_for(|seen| *seen >= to).await?;
            hub.shutdown();
            anyhow::Ok(())
        };
        let ((), published) = tokio::join!(hub.serve(listener), publish);
        published?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn show(line: &str) {
    println!("{line}");
}
