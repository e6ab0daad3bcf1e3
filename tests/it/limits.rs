//! Limits: of size, of time, and of the number of connections.

use crate::support::{
    server::{Answer, TestServer},
    stream::{DEADLINE, Stream},
    witness::Witness,
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, interval, timeout},
};

const SHORT: Duration = Duration::from_millis(300);

/// All that comes until the hub closes, also if it does so by a reset.
async fn rest(tcp: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = timeout(DEADLINE, tcp.read_to_end(&mut all))
        .await
        .expect("closed in time");
    all
}

/// Sends `first` and then a byte of `more` at a time, again and again, until the hub closes; gives what it said.
async fn drip(tcp: &mut TcpStream, first: &[u8], more: &[u8]) -> Vec<u8> {
    let begun = Instant::now();
    let (mut read, mut write) = tcp.split();
    let answer = async {
        let mut all = Vec::new();
        let _ = read.read_to_end(&mut all).await;
        all
    };
    let dripping = async {
        let _ = write.write_all(first).await;
        let mut tick = interval(SHORT / 10);
        for byte in more.iter().cycle() {
            tick.tick().await;
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let closed = async {
        tokio::select! {
            said = answer => said,
            () = dripping => Vec::new(),
        }
    };
    let said = timeout(DEADLINE, closed).await.expect("closed in time");
    assert!(begun.elapsed() > SHORT / 2, "too early");
    assert!(begun.elapsed() < Duration::from_secs(5), "too late");
    said
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let mut hub = Witness::with(|config| config.server.head_timeout = SHORT).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (what, first, more) in [
        (
            "a header without end",
            &b"GET /events?topic=a HTTP/1.1\r\nHost: localhost\r\nX-Slow: "[..],
            &b"x"[..],
        ),
        (
            "header upon header",
            b"POST /topics/a HTTP/1.1\r\nHost: localhost\r\n",
            b"a:b\r\n",
        ),
        ("a first line without end", b"GET /", b"a"),
        ("empty lines", b"\r\n", b"\r\n"),
        ("HTTP/2's first bytes", b"", &preface[..20]),
    ] {
        let mut tcp = hub.connect().await;
        // No more of the preface than does not yet show that it is none.
        let said = match what {
            "HTTP/2's first bytes" => {
                tcp.write_all(more).await.unwrap();
                rest(&mut tcp).await
            }
            _ => drip(&mut tcp, first, more).await,
        };
        assert_eq!(said.escape_ascii().to_string(), "", "{what}");
        hub.unharmed(what).await;
    }
    let begun = Instant::now();
    assert_eq!(
        rest(&mut hub.connect().await).await,
        b"",
        "a connection that says nothing"
    );
    assert!(begun.elapsed() >= SHORT);
    // Nor is a second head on a connection that was served before.
    let mut tcp = hub.connect().await;
    let first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he";
    let said = String::from_utf8(drip(&mut tcp, first, b"a").await).unwrap();
    assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
    assert!(said.ends_with("ok\n"), "{said}");
    hub.unharmed("silence").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_body_that_stalls() {
    let mut hub = Witness::with(|config| config.server.body_timeout = SHORT).await;
    for (path, length) in [
        ("/topics/a", "Content-Length: 10\r\n\r\nhalf"),
        (
            "/topics/a",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ),
        ("/publish", "Content-Length: 30\r\n\r\n{\"topic\":"),
        ("/publish", "Transfer-Encoding: chunked\r\n\r\n"),
    ] {
        let mut tcp = hub.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}"
        );
        tcp.write_all(head.as_bytes()).await.unwrap();
        let answer = Answer::parse(&rest(&mut tcp).await);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (408, "body-timeout"),
            "{length}"
        );
        hub.unharmed(length).await;
    }
    // Cut off, with somebody still there to be told.
    let mut tcp = hub.connect().await;
    tcp.write_all(b"POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        .await
        .unwrap();
    tcp.shutdown().await.unwrap();
    let answer = Answer::parse(&rest(&mut tcp).await);
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (400, "request-invalid")
    );
    hub.unharmed("a body cut off").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_refused_while_it_arrives() {
    let mut hub = Witness::start().await;
    for (path, kind) in [
        ("/topics/a", "text/plain"),
        ("/publish", "application/json"),
    ] {
        let mut tcp = hub.connect().await;
        let (mut read, mut write) = tcp.split();
        let endless = async {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            write.write_all(head.as_bytes()).await.unwrap();
            let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
            // It goes on while the answer is read: no reset may overtake that.
            while write.write_all(&chunk).await.is_ok() {}
            panic!("a reset before the answer was read");
        };
        let mut raw = Vec::new();
        tokio::select! {
            () = endless => {}
            read = timeout(DEADLINE, read.read_to_end(&mut raw)) => drop(read.unwrap().unwrap()),
        }
        let answer = Answer::parse(&raw);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (413, "too-large"),
            "{path}"
        );
        hub.unharmed(path).await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_body_announced_too_large_is_refused_unread() {
    let mut hub = Witness::start().await;
    for (path, length, more) in [
        ("/topics/a", "1048577", ""),
        ("/topics/a", "18446744073709551613", ""),
        ("/topics/a", "99999999", "Expect: 100-continue\r\n"),
        ("/publish", "16777217", ""),
    ] {
        let mut tcp = hub.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}Content-Length: {length}\r\n\r\n"
        );
        tcp.write_all(head.as_bytes()).await.unwrap();
        let answer = Answer::parse(&rest(&mut tcp).await);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (413, "too-large"),
            "{length}"
        );
        hub.unharmed(length).await;
    }
    // One that sends all of it before it reads gets the answer, too.
    let answer = hub.post("/topics/a", &[], vec![b'x'; 40 << 20]).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (413, "too-large")
    );
    hub.unharmed("40 MiB").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_head_may_have_64_kib() {
    let mut hub = Witness::start().await;
    // 100 topics, so long that one more would not fit.
    let topic = |i: usize| format!("{i:03}{}", "t".repeat(636));
    let query: Vec<String> = (0..100).map(|i| format!("topic={}", topic(i))).collect();
    let path = format!("/events?{}", query.join("&"));
    assert!(path.len() > 63 << 10);
    let mut stream = hub.subscribe(&path).await;
    assert_eq!(stream.status(), 200);
    for i in [0, 50, 99] {
        hub.publish(&topic(i), i.to_string()).await;
        assert_eq!(stream.next().await.data, i.to_string());
        hub.expect(&[&i.to_string()], "a long head").await;
    }
    for (what, path, headers) in [
        (
            "a long path",
            format!("/topics/{}", "a".repeat(70_000)),
            String::new(),
        ),
        (
            "a long header",
            "/events?topic=a".to_owned(),
            format!("X-Long: {}\r\n", "a".repeat(70_000)),
        ),
        (
            "many headers",
            "/events?topic=a".to_owned(),
            "X-Many: 1\r\n".repeat(300),
        ),
        (
            "long without end",
            format!("/{}", "a".repeat(10 << 20)),
            String::new(),
        ),
    ] {
        for method in ["GET", "POST"] {
            let raw = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 0\r\n\r\n"
            );
            let answer = Answer::parse(&hub.raw(raw.as_bytes()).await);
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (431, "head-too-large"),
                "{what}"
            );
        }
        hub.unharmed(what).await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_path_beyond_what_any_head_may_have() {
    let mut hub = Witness::with(|config| config.server.head_bytes_max = 1 << 20).await;
    let answer = hub
        .get(&format!("/topics/{}", "a".repeat(70_000)), &[])
        .await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (414, "uri-too-long")
    );
    hub.unharmed("a long path").await;
    hub.stop().await;
}

/// Requests whose parts disagree on where they end, with another one hidden behind.
#[tokio::test]
async fn a_request_that_contradicts_itself_hides_no_other() {
    let mut hub = Witness::with(|config| config.server.head_timeout = SHORT).await;
    let hidden =
        "POST /topics/hidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nhidden";
    let length = format!("Content-Length: {}\r\n", hidden.len() + 5);
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (what, headers, body) in [
        (
            "length, then chunks",
            format!("{length}{chunked}"),
            "0\r\n\r\n",
        ),
        (
            "chunks, then length",
            format!("{chunked}{length}"),
            "0\r\n\r\n",
        ),
        (
            "length 0, then chunks",
            format!("Content-Length: 0\r\n{chunked}"),
            "0\r\n\r\n",
        ),
        (
            "chunks, then length 0",
            format!("{chunked}Content-Length: 0\r\n"),
            "0\r\n\r\n",
        ),
        (
            "no length, then chunks",
            format!("Content-Length: x\r\n{chunked}"),
            "0\r\n\r\n",
        ),
        (
            "two lengths",
            format!("Content-Length: 5\r\n{length}"),
            "0\r\n\r\n",
        ),
        (
            "a length that is none",
            "Content-Length: +5\r\n".to_owned(),
            "0\r\n\r\n",
        ),
        (
            "a list of lengths",
            "Content-Length: 5, 6\r\n".to_owned(),
            "0\r\n\r\n",
        ),
        (
            "an encoding that is none",
            format!("{length}Transfer-Encoding: xchunked\r\n"),
            "0\r\n\r\n",
        ),
        (
            "chunked twice, then plain",
            format!("{chunked}Transfer-Encoding: identity\r\n"),
            "0\r\n\r\n",
        ),
        (
            "a folded header",
            format!("{length}X-A: b\r\n Transfer-Encoding: chunked\r\n"),
            "0\r\n\r\n",
        ),
        (
            "a space before the colon",
            "Content-Length : 5\r\n".to_owned(),
            "0\r\n\r\n",
        ),
        ("a bad chunk", chunked.to_owned(), "zz\r\n"),
        (
            "an endless chunk size",
            chunked.to_owned(),
            "ffffffffffffffffff\r\n",
        ),
    ] {
        // To a topic that is none, so that nothing is stored whatever the hub makes of the body.
        let raw =
            format!("POST /topics/.. HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}{hidden}");
        let said = String::from_utf8(hub.raw(raw.as_bytes()).await).unwrap();
        let answers = said.matches("HTTP/1.1 ").count();
        assert_eq!(answers, 1, "{what}: {said}");
        assert!(said.starts_with("HTTP/1.1 400 "), "{what}: {said}");
        hub.unharmed(what).await;
    }
    // Chunks count, as RFC 9112 has it, and the connection closes after the one answer.
    for headers in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
        let raw = format!(
            "POST /topics/a HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n1\r\nx\r\n0\r\n\r\n{hidden}"
        );
        let said = String::from_utf8(hub.raw(raw.as_bytes()).await).unwrap();
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
        assert!(
            said.to_ascii_lowercase().contains("connection: close"),
            "{said}"
        );
        hub.expect(&["x"], "chunks").await;
        hub.unharmed("chunks").await;
    }
    let raw = format!(
        "POST /topics/a HTTP/1.0\r\nHost: localhost\r\n{chunked}\r\n1\r\nx\r\n0\r\n\r\n{hidden}"
    );
    assert!(
        hub.raw(raw.as_bytes()).await.starts_with(b"HTTP/1.1 400 "),
        "HTTP/1.0 has no chunks"
    );
    let raw = "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    assert!(
        hub.raw(raw.as_bytes()).await.starts_with(b"HTTP/1.1 415 "),
        "compressed"
    );
    hub.unharmed("encodings").await;
    hub.stop().await;
}

#[tokio::test]
async fn garbage_after_a_request() {
    let mut hub = Witness::with(|config| config.server.head_timeout = SHORT).await;
    let request = "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    for garbage in [
        "\0\0\0\0",
        "\u{16}\u{3}\u{1}",
        "GET\r\n\r\n",
        "{\"json\":1}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let said = hub.raw(format!("{request}{garbage}").as_bytes()).await;
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("HTTP/1.1 201 "), "{said}");
        assert!(
            said.matches("HTTP/1.1 ").count() <= 2,
            "{garbage:?}: {said}"
        );
        hub.expect(&["x"], garbage).await;
        let said = hub.raw(garbage.as_bytes()).await;
        assert!(!said.starts_with(b"HTTP/1.1 2"), "{garbage:?} alone");
        hub.unharmed(garbage).await;
    }
    // Two good requests at once get two answers, in their order.
    let last = request.replace("Host", "Connection: close\r\nHost");
    let said = String::from_utf8(hub.raw(format!("{request}{last}").as_bytes()).await).unwrap();
    assert_eq!(said.matches("HTTP/1.1 201 ").count(), 2, "{said}");
    hub.stop().await;
}

/// curl waits a second for `100 Continue` before it sends what it has.
#[tokio::test]
async fn a_client_that_offers_ndjson_is_told_to_go_on() {
    let hub = TestServer::start().await;
    let mut tcp = hub.connect().await;
    let head = "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
                Expect: 100-continue\r\nContent-Length: 23\r\n\r\n";
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    timeout(DEADLINE, tcp.read_exact(&mut told))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    tcp.write_all(b"{\"topic\":\"a\",\"data\":1}\n")
        .await
        .unwrap();
    let mut answer = Stream::on(tcp).await;
    assert_eq!(answer.status(), 200);
    answer.until("\"duplicate\":false").await;
}
