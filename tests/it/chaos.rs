//! The chaos proxy does what it says.

use crate::support::{
    chaos::{ChaosProxy, Mode},
    stream::DEADLINE,
};
use std::{io::ErrorKind, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};

/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(200);

/// A server that gives back what it gets. It ends on drop.
struct Echo {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let (mut from, mut to) = socket.split();
                    let _ = copy(&mut from, &mut to).await;
                });
            }
        });
        Self {
            address,
            _task: task,
        }
    }
}

async fn through_proxy() -> (Echo, ChaosProxy, TcpStream) {
    let echo = Echo::start().await;
    let proxy = ChaosProxy::start(echo.address).await;
    let client = TcpStream::connect(proxy.address).await.unwrap();
    client.set_nodelay(true).unwrap();
    (echo, proxy, client)
}

async fn say(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).await.unwrap();
}

async fn hear(client: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    let read = timeout(DEADLINE, client.read_exact(&mut heard)).await;
    read.expect("in time").unwrap();
    assert_eq!(heard, text.as_bytes());
}

async fn hear_nothing(client: &mut TcpStream) {
    let read = timeout(SILENCE, client.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test]
async fn what_passes_comes_back_and_so_does_the_end() {
    let (_echo, _proxy, mut client) = through_proxy().await;
    let large: String = (0..600_000)
        .map(|i| char::from(b'a' + (i % 26) as u8))
        .collect();
    let (mut from, mut to) = client.split();
    let mut heard = String::new();
    let (sent, read) = tokio::join!(
        async {
            to.write_all(large.as_bytes()).await.unwrap();
            to.shutdown().await
        },
        timeout(DEADLINE, from.read_to_string(&mut heard)),
    );
    sent.unwrap();
    read.expect("in time").unwrap();
    assert!(heard == large);
}

#[tokio::test]
async fn nothing_moves_while_it_stalls() {
    let (_echo, proxy, mut client) = through_proxy().await;
    say(&mut client, "before").await;
    hear(&mut client, "before").await;
    proxy.set(Mode::Stall).await;
    say(&mut client, "meanwhile").await;
    hear_nothing(&mut client).await;
    let mut another = TcpStream::connect(proxy.address).await.unwrap();
    say(&mut another, "new").await;
    hear_nothing(&mut another).await;
    proxy.set(Mode::Pass).await;
    hear(&mut client, "meanwhile").await;
    hear(&mut another, "new").await;
}

#[tokio::test]
async fn a_cut_ends_connections_and_refuses_new_ones() {
    let (_echo, proxy, mut client) = through_proxy().await;
    say(&mut client, "before").await;
    hear(&mut client, "before").await;
    for mode in [Mode::Pass, Mode::Stall] {
        proxy.set(mode).await;
        proxy.set(Mode::Cut).await;
        let ended = timeout(DEADLINE, client.read_u8()).await.expect("in time");
        assert!(ended.is_err());
        for _ in 0..10 {
            let refused = TcpStream::connect(proxy.address).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
        proxy.set(Mode::Pass).await;
        client = TcpStream::connect(proxy.address).await.unwrap();
        say(&mut client, "after").await;
        hear(&mut client, "after").await;
    }
}

#[tokio::test]
async fn bytes_are_late_each_way_and_many_are_on_their_way() {
    let (_echo, proxy, mut client) = through_proxy().await;
    let delay = Duration::from_millis(150);
    proxy.set(Mode::Delay(delay)).await;
    let begun = Instant::now();
    let texts: Vec<_> = (0..100).map(|i| format!("text {i};")).collect();
    for text in &texts {
        say(&mut client, text).await;
    }
    hear(&mut client, &texts.concat()).await;
    assert!(begun.elapsed() >= 2 * delay);
    assert!(begun.elapsed() < 20 * delay, "one after the other");
    // What was held up comes at once when it ends.
    proxy.set(Mode::Delay(DEADLINE)).await;
    say(&mut client, "late").await;
    hear_nothing(&mut client).await;
    proxy.set(Mode::Pass).await;
    hear(&mut client, "late").await;
}

#[tokio::test]
async fn throttled_bytes_take_their_time() {
    let (_echo, proxy, mut client) = through_proxy().await;
    proxy.set(Mode::Throttle(100_000)).await;
    let text = "x".repeat(50_000);
    let begun = Instant::now();
    let (mut from, mut to) = client.split();
    let mut heard = vec![0; text.len()];
    let (sent, read) = tokio::join!(
        to.write_all(text.as_bytes()),
        timeout(DEADLINE, from.read_exact(&mut heard)),
    );
    sent.unwrap();
    read.expect("in time").unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");
    proxy.set(Mode::Pass).await;
    say(&mut client, "quick").await;
    hear(&mut client, "quick").await;
}

#[tokio::test]
async fn no_server_behind_it_is_an_end() {
    let (echo, proxy, mut client) = through_proxy().await;
    drop(echo);
    let ended = timeout(DEADLINE, client.read_u8()).await.expect("in time");
    assert!(ended.is_err());
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let ended = timeout(DEADLINE, client.read_u8()).await.expect("in time");
    assert!(ended.is_err());
}
