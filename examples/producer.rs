//! A producer that loses nothing and publishes nothing twice: each event has an idempotency key, and a publish whose
//! outcome is not known is repeated with the same key.
//!
//! `cargo run --example producer [URL]`: without a URL it starts a hub of its own.

use std::time::Duration;
use tidings::{
    Server,
    config::{Config, Engine, LogConfig},
};

/// How often one event is tried before the producer gives up.
const TRIES: u32 = 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1) {
        Some(url) => produce(&url).await,
        None => with_hub(|url| async move { produce(&url).await }).await,
    }
}

async fn produce(url: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    for number in 0..3 {
        let reading = format!("{{\"celsius\":{}}}", 20 + number);
        // What identifies the event at its source identifies it here: a sensor's counter, an order's number.
        let answer = publish(
            &client,
            &format!("{url}/topics/sensors/attic"),
            &format!("attic-{number}"),
            reading,
        )
        .await?;
        show(&answer);
    }
    // The same once more, as after a crash of the producer: nothing new.
    let again = publish(
        &client,
        &format!("{url}/topics/sensors/attic"),
        "attic-0",
        "{\"celsius\":20}".into(),
    )
    .await?;
    show(&again);
    anyhow::ensure!(
        again.contains("\"duplicate\":true"),
        "published twice: {again}"
    );
    Ok(())
}

/// Publishes until the hub says that it is stored. A lost answer and a 503 leave open whether it is; the key settles it.
async fn publish(
    client: &reqwest::Client,
    url: &str,
    key: &str,
    data: String,
) -> anyhow::Result<String> {
    let mut wait = Duration::from_millis(100);
    for _ in 0..TRIES {
        let request = client
            .post(url)
            .header("Idempotency-Key", key)
            .body(data.clone())
            .timeout(Duration::from_secs(10));
        match request.send().await {
            Ok(answer) if answer.status().is_success() => return Ok(answer.text().await?),
            // It would be refused again.
            Ok(answer) if answer.status().is_client_error() => {
                anyhow::bail!("refused: {}", answer.text().await?)
            }
            Ok(_) | Err(_) => tokio::time::sleep(wait).await,
        }
        wait *= 2;
    }
    anyhow::bail!("the hub did not answer")
}

/// Runs against a hub in this process, with its log in memory.
async fn with_hub<F: Future<Output = anyhow::Result<()>>>(
    run: impl FnOnce(String) -> F,
) -> anyhow::Result<()> {
    let log = LogConfig {
        engine: Engine::Memory,
        ..LogConfig::default()
    };
    let hub = Server::open(&Config {
        log,
        ..Config::default()
    })
    .await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let run = async {
        let result = run(url).await;
        hub.shutdown();
        result
    };
    let ((), result) = tokio::join!(hub.serve(listener), run);
    result
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn show(line: &str) {
    println!("{}", line.trim_end());
}
