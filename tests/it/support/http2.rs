//! A client of HTTP/2 with prior knowledge.

use super::{
    server::TestServer,
    stream::{DEADLINE, PATIENCE},
};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
    ext::Protocol,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, net::Shutdown};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

/// One connection.
pub(crate) struct Client {
    pub(crate) requests: SendRequest<BoxBody<Bytes, Infallible>>,
    /// Its socket once more.
    tcp: std::net::TcpStream,
    pub(crate) authority: String,
}

impl Client {
    pub(crate) async fn connect(server: &TestServer) -> Self {
        let tcp = server.connect().await.into_std().unwrap();
        let io = TokioIo::new(TcpStream::from_std(tcp.try_clone().unwrap()).unwrap());
        let (requests, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the connection, or with the runtime"
        )]
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self {
            requests,
            tcp,
            authority: server.address.to_string(),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response<Incoming> {
        let body = http_body_util::Empty::new().boxed();
        self.send("GET", path, &[], body).await
    }

    /// A POST whose body is what comes over the channel, until it is closed.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (mpsc::Sender<Bytes>, Response<Incoming>) {
        let (parts, body) = mpsc::channel(8);
        let body = ReceiverStream::new(body).map(|part| Ok(Frame::data(part)));
        let body = BodyExt::boxed(StreamBody::new(body));
        (parts, self.send("POST", path, headers, body).await)
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: BoxBody<Bytes, Infallible>,
    ) -> Response<Incoming> {
        let uri = format!("http://{}{path}", self.authority);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.requests.send_request(request.body(body).unwrap());
        timeout(DEADLINE, answer).await.unwrap().unwrap()
    }

    /// An extended CONNECT, which opens a WebSocket.
    pub(crate) async fn connect_socket(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        // The hub's settings, which allow it, have come with the first answer.
        assert_eq!(self.get("/healthz").await.status(), 200);
        let uri = format!("http://{}{path}", self.authority);
        let mut request = Request::builder().method("CONNECT").uri(uri);
        request = request.header("sec-websocket-version", "13");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.extension(Protocol::from_static("websocket"));
        let body = http_body_util::Empty::new().boxed();
        let answer = self.requests.send_request(request.body(body).unwrap());
        timeout(DEADLINE, answer).await.unwrap().unwrap()
    }

    /// Closes the connection without a word.
    pub(crate) fn cut(self) {
        self.tcp.shutdown(Shutdown::Both).unwrap();
    }
}

/// Reads until the body has `text` in it.
pub(crate) async fn until(body: &mut Incoming, read: &mut String, text: &str) {
    let by = Instant::now() + PATIENCE;
    while !read.contains(text) {
        let frame = timeout_at(by, body.frame()).await;
        let frame = frame
            .unwrap_or_else(|_| panic!("{text:?} does not come: {read:?}"))
            .unwrap_or_else(|| panic!("ended before {text:?}: {read:?}"))
            .unwrap();
        if let Ok(data) = frame.into_data() {
            read.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
}
