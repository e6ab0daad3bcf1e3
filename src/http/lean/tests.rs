//! What the routes of the hub do not show: answers that only hyper can send, and handlers that take their time.

use crate::{
    config::{Config, Http1},
    http::listener::Listener,
};
use axum::{
    Router,
    body::{Body, Bytes},
    routing::{get, post},
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long any step of a test may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Some routes behind a listener, until it is dropped.
struct Served {
    address: SocketAddr,
    drain: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Served {
    async fn start(router: Router, http1: Http1) -> Self {
        let mut limits = Config::default().server;
        limits.http1 = http1;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self {
            address,
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let door = Listener {
            router,
            limits,
            drain: this.drain.clone(),
            stop: this.stop.clone(),
            tasks: this.tasks.clone(),
        };
        TaskTracker::new().spawn(door.accept(listener));
        this
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// All that comes back until the connection is closed.
    async fn raw(&self, request: &str) -> String {
        let mut tcp = self.connect().await;
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut all = String::new();
        let read = timeout(DEADLINE, tcp.read_to_string(&mut all)).await;
        read.expect("closed in time").unwrap();
        all
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn an_answer_that_streams_is_sent_by_hyper_and_its_request_runs_once() {
    for http1 in [Http1::Lean, Http1::Library] {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let parts = post(async move |body: Bytes| {
            counted.fetch_add(1, Ordering::Relaxed);
            let parts = [
                Ok::<_, Infallible>(Bytes::from("<")),
                Ok(body),
                Ok(Bytes::from(">")),
            ];
            Body::from_stream(tokio_stream::iter(parts))
        });
        let served = Served::start(Router::new().route("/parts", parts), http1).await;
        let request = "POST /parts HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        let last = request.replace("HTTP/1.1\r\n", "HTTP/1.1\r\nConnection: close\r\n");
        let said = served.raw(&format!("{request}{request}{last}")).await;
        let body = "\r\n\r\n1\r\n<\r\n3\r\nabc\r\n1\r\n>\r\n0\r\n\r\n";
        assert_eq!(said.matches(body).count(), 3, "{http1:?}: {said}");
        assert_eq!(runs.load(Ordering::Relaxed), 3, "{http1:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_not_worked_for() {
    for http1 in [Http1::Lean, Http1::Library] {
        let (working, mut works) = mpsc::channel::<mpsc::Receiver<()>>(1);
        let endless = get(async move || {
            // Dropped with the work.
            let (_working, until) = mpsc::channel(1);
            working.send(until).await.unwrap();
            std::future::pending::<()>().await;
        });
        let served = Served::start(Router::new().route("/endless", endless), http1).await;
        let mut tcp = served.connect().await;
        tcp.write_all(b"GET /endless HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let mut until = timeout(DEADLINE, works.recv()).await.unwrap().unwrap();
        tcp.shutdown().await.unwrap();
        let ended = timeout(DEADLINE, until.recv()).await;
        assert_eq!(ended.expect("ended in time"), None, "{http1:?}");
    }
}

#[tokio::test]
async fn an_answer_during_a_drain_is_the_last() {
    for http1 in [Http1::Lean, Http1::Library] {
        let (working, mut works) = mpsc::channel::<mpsc::Sender<()>>(1);
        let asked = get(async move || {
            let (done, mut until) = mpsc::channel(1);
            working.send(done).await.unwrap();
            until.recv().await;
            "done"
        });
        let served = Served::start(Router::new().route("/", asked), http1).await;
        let mut idle = served.connect().await;
        let mut tcp = served.connect().await;
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let done = timeout(DEADLINE, works.recv()).await.unwrap().unwrap();
        served.drain.cancel();
        let mut nothing = String::new();
        let closed = timeout(DEADLINE, idle.read_to_string(&mut nothing)).await;
        assert_eq!(closed.expect("closed in time").unwrap(), 0);
        drop(done);
        let mut said = String::new();
        let read = timeout(DEADLINE, tcp.read_to_string(&mut said)).await;
        read.expect("closed in time").unwrap();
        assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 1, "{said}");
        assert!(said.contains("\r\nconnection: close\r\n"), "{said}");
        served.tasks.close();
        drop((idle, tcp));
        timeout(DEADLINE, served.tasks.wait())
            .await
            .expect("all ended");
    }
}

/// Much larger than what a socket takes at once.
#[tokio::test]
async fn a_large_answer_arrives_whole() {
    for http1 in [Http1::Lean, Http1::Library] {
        let large: Bytes = (0..8 << 20).map(|i: u32| b'a' + (i % 23) as u8).collect();
        let sent = large.clone();
        let routes = Router::new().route("/", get(async move || sent));
        let served = Served::start(routes, http1).await;
        let mut tcp = served.connect().await;
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut all = Vec::new();
        let read = timeout(DEADLINE, tcp.read_to_end(&mut all)).await;
        read.expect("closed in time").unwrap();
        let mut rest = &all[..];
        for answer in 0..2 {
            let head = memchr::memmem::find(rest, b"\r\n\r\n").expect("a head") + 4;
            assert!(rest[head..].starts_with(&large), "{http1:?} {answer}");
            rest = &rest[head + large.len()..];
        }
        assert_eq!(rest, b"");
    }
}
