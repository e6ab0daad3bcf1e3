//! Against a hub that does as the test says, so that connections break where it hurts.

use super::{DEADLINE, Running, read_head, tidings};
use crate::support::process::{bytes, exit_within, kill};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::mpsc::{Receiver, channel},
    thread,
};
use tempfile::TempDir;

/// A hub that answers as the test tells it to.
struct Scripted {
    url: String,
    requests: Receiver<(String, TcpStream)>,
}

impl Scripted {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head = read_head(&mut stream);
                if sender.send((head, stream)).is_err() {
                    return;
                }
            }
        });
        Self { url, requests }
    }

    fn request(&self) -> (String, TcpStream) {
        self.requests.recv_timeout(DEADLINE).unwrap()
    }

    /// Answers the next request with a stream of that beginning.
    fn stream(&self, text: &str) -> (String, TcpStream) {
        let (head, mut stream) = self.request();
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        (head, stream)
    }

    fn client(&self, args: &[&str], dir: &TempDir) -> Running {
        let mut command = tidings(args, dir);
        Running::start(command.args(["--url", &self.url]))
    }
}

#[test]
fn subscribe_resumes_where_it_was() {
    let hub = Scripted::start();
    let dir = TempDir::new().unwrap();
    let mut reader = hub.client(&["subscribe", "a b", "c/*", "--since", "10m"], &dir);

    let open = "retry: 1\n: hello\nevent: tidings.open\nid: e-5\ndata: {\"cursor\":\"e-5\"}\n\n";
    let (head, stream) = hub.stream(open);
    assert!(
        head.starts_with("GET /events?topic=a%20b&topic=c%2F%2A&open=1&since=10m HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("accept: text/event-stream"), "{head}");
    drop(stream);

    // Before any event, the start cursor counts; an event that was cut off does not.
    let text = "retry: 1\nid: e-6\ndata: one\ndata: two\n\nid: e-7\ndata: cut";
    let (head, stream) = hub.stream(text);
    assert!(
        head.contains("last-event-id: e-5\r\n") && !head.contains("since"),
        "{head}"
    );
    assert_eq!(reader.line(), "one");
    assert_eq!(reader.line(), "two");
    drop(stream);

    let text = "retry: 1\nid: e-7\nevent: named\ndata: three\n\n\
                event: tidings.gap\ndata: {\"reason\":\"lagged\",\"missed\":4}\n\n\
                event: tidings.close\ndata: {\"reason\":\"draining\"}\n\n";
    let (head, stream) = hub.stream(text);
    assert!(head.contains("last-event-id: e-6\r\n"), "{head}");
    assert_eq!(reader.line(), "three");
    reader.error_line("gap: 4 events are missing (lagged)");
    reader.error_line("closed by the hub: {\"reason\":\"draining\"}");
    drop(stream);

    // An outage is waited for, a refusal is not.
    let (head, mut stream) = hub.request();
    assert!(head.contains("last-event-id: e-7\r\n"), "{head}");
    stream
        .write_all(
            b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        )
        .unwrap();
    let (_, mut stream) = hub.request();
    let body = "{\"type\":\"/problems/x\",\"title\":\"No\",\"detail\":\"never\"}";
    let length = body.len();
    let answer = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).unwrap();
    reader.error_line("tidings: No: never (status 400)");
    assert_eq!(reader.wait().code(), Some(1));
}

#[test]
fn subscribe_prints_json_lines() {
    let hub = Scripted::start();
    let dir = TempDir::new().unwrap();
    let reader = hub.client(&["subscribe", "a", "--json", "--tail", "3"], &dir);
    let text = "event: tidings.gap\ndata: {\"reason\":\"expired\"}\n\n\
                id: e-1\nevent: x\ndata: {\"topic\":\"a\",\"data\":\"1\"}\n\n";
    let (head, _stream) = hub.stream(text);
    assert!(
        head.starts_with("GET /events?topic=a&open=1&frame=envelope&tail=3 "),
        "{head}"
    );
    assert_eq!(reader.line(), "{\"gap\":{\"reason\":\"expired\"}}");
    assert_eq!(reader.line(), "{\"topic\":\"a\",\"data\":\"1\"}");
}

#[test]
fn subscribe_ends_when_nobody_reads_it() {
    let hub = Scripted::start();
    let dir = TempDir::new().unwrap();
    let mut command = tidings(&["subscribe", "a", "--url", &hub.url], &dir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let errors = bytes(child.stderr.take().unwrap());
    let (_, _stream) = hub.stream(": hello\n");
    // Not even an event is needed to find out.
    drop(child.stdout.take());
    let status = exit_within(&mut child, DEADLINE);
    kill(&mut child);
    assert_eq!(status.expect("an end by itself").code(), Some(0));
    assert_eq!(errors.recv_timeout(DEADLINE).unwrap(), b"");
}

#[test]
fn publish_sends_what_it_was_told() {
    let hub = Scripted::start();
    let dir = TempDir::new().unwrap();
    let args = [
        "publish",
        "a/b c",
        "{}",
        "--event",
        "x y",
        "--own-id",
        "o-1x",
        "--retry",
        "2s",
        "--idempotency-key",
        "k",
    ];
    let mut publisher = hub.client(&args, &dir);
    let (head, mut stream) = hub.request();
    let path = "POST /topics/a/b%20c?event=x%20y&own_id=o-1x&retry=2000 HTTP/1.1\r\n";
    assert!(head.starts_with(path), "{head}");
    assert!(head.contains("idempotency-key: k\r\n"), "{head}");
    let mut body = [0; 2];
    stream.read_exact(&mut body).unwrap();
    assert_eq!(body, *b"{}");
    let body = "{\"id\":\"e-1\",\"topic\":\"a/b c\",\"duplicate\":true}";
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).unwrap();
    assert_eq!(publisher.line(), "e-1");
    publisher.error_line("published before under this key");
    assert!(publisher.wait().success());
}
