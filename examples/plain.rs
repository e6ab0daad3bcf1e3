//! Server-Sent Events as one would write them in an hour: `axum::serve`, `Sse`, and a `broadcast` channel. It is what
//! `make bench` compares the hub with, and shows what a hub is for. What is missing here:
//!
//! - **Nothing is kept.** A reader that reconnects has lost what came in between, and is not told; so has everybody
//!   after a restart. The hub has a durable log, and answers a publish when the event is in it.
//! - **A slow reader loses events in silence**: `broadcast` says `Lagged`, and the only thing to do is to go on. The hub
//!   reads the log for it, and tells a gap if it must.
//! - **One write per reader and event.** The kernel's send is four fifths of the cost of a delivery, so many events at
//!   a time cost as many times as much. The hub puts what came during one pass over its readers into one frame.
//! - **Each reader encodes each event again**, and holds hyper's buffers for as long as it listens: over 20 KiB.
//! - No topics, limits, deadlines, drain. A connection that takes nothing is held for ever.
//!
//! `cargo run --example plain` shows itself one event and ends; `cargo run --release --example plain 127.0.0.1:8081`
//! serves until it is stopped: `POST` and `GET` on any path.

use axum::{
    Router,
    extract::State,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use std::{convert::Infallible, sync::Arc};
use tokio::{
    net::TcpListener,
    sync::broadcast::{self, error::RecvError},
};
use tokio_stream::Stream;

/// Events that a reader may be behind: past that it loses the oldest. All slots are allocated at once.
const BEHIND_MAX: usize = 65_536;

type Events = broadcast::Sender<Arc<str>>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let url = format!("http://{}/demo", listener.local_addr()?);
    announce(&format!("The plain server is listening on {url}"));
    let app = Router::new()
        .route("/{*path}", get(subscribe).post(publish))
        .with_state(broadcast::channel(BEHIND_MAX).0);
    let serving = axum::serve(listener, app).into_future();
    tokio::select! {
        served = serving => Ok(served?),
        shown = show(&url), if address.is_none() => shown,
    }
}

async fn publish(State(events): State<Events>, data: String) {
    // An error means that nobody listens: the event is gone.
    let _ = events.send(data.into());
}

async fn subscribe(
    State(events): State<Events>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut events = events.subscribe();
    let stream = async_stream::stream! {
        loop {
            match events.recv().await {
                Ok(data) => yield Ok(Event::default().data(data)),
                // The loss in silence: there is nothing to read it from again.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    };
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// Subscribes, publishes, and prints what comes.
async fn show(url: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let mut stream = client.get(url).send().await?;
    client.post(url).body("hello").send().await?;
    let event = stream.chunk().await?.unwrap_or_default();
    announce(&String::from_utf8_lossy(&event));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn announce(line: &str) {
    println!("{line}");
}
