//! What a client may do wrong: it is refused as documented, and harms nobody else.

use crate::support::{stream::DEADLINE, witness::Witness, ws::Socket};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

/// The hub's answer to a message, on a connection that goes on.
async fn refused(socket: &mut Socket, text: &str) -> Value {
    socket.send_raw(Message::text(text)).await;
    let told = socket.next().await;
    let shown: String = text.chars().take(100).collect();
    assert_eq!(told["message"], shown.as_str(), "{told}");
    assert!(
        told["error"]["detail"]
            .as_str()
            .is_some_and(|detail| detail.len() < 600),
        "{told}"
    );
    told
}

#[tokio::test]
async fn a_bad_message_is_named_and_the_connection_goes_on() {
    let mut hub = Witness::with(|config| config.publish.event_bytes_max = 1_000).await;
    let mut socket = Socket::open(&hub, "/ws").await;
    let large = format!(
        r#"{{"ref":"r","publish":{{"topic":"a","data":"{}"}}}}"#,
        "x".repeat(1_001)
    );
    let deep = format!("{{\"hello\":{}", "[".repeat(10_000));
    let unclosed = format!("{{\"publish\":{}", "[".repeat(10_000));
    for (text, status, kind) in [
        ("", 400, "json-invalid"),
        ("hello", 400, "json-invalid"),
        ("{\"publish\":", 400, "json-invalid"),
        (deep.as_str(), 400, "message-invalid"),
        (unclosed.as_str(), 400, "json-invalid"),
        ("null", 400, "message-invalid"),
        ("[]", 400, "message-invalid"),
        ("{}", 400, "message-invalid"),
        (r#"{"hello":1}"#, 400, "message-invalid"),
        (r#"{"ref":1,"publish":{}}"#, 400, "message-invalid"),
        (
            r#"{"unsubscribe":{"sub":"nobody"}}"#,
            400,
            "message-invalid",
        ),
        (r#"{"unsubscribe":{"sub":"url"}}"#, 400, "message-invalid"),
        (
            r#"{"subscribe":{"sub":"a","topics":[]}}"#,
            400,
            "filter-invalid",
        ),
        (
            r#"{"subscribe":{"sub":"a","topics":["/../"]}}"#,
            400,
            "filter-invalid",
        ),
        (
            r#"{"subscribe":{"sub":"a","topics":["x"],"tail":-1}}"#,
            400,
            "message-invalid",
        ),
        (
            r#"{"subscribe":{"sub":"a","topics":["x"],"since":"1h","tail":1}}"#,
            400,
            "parameter-invalid",
        ),
        (r#"{"publish":{"topic":"a"}}"#, 422, "event-invalid"),
        (
            r#"{"publish":{"topic":"tidings.a","data":1}}"#,
            422,
            "event-invalid",
        ),
        (
            r#"{"publish":{"topic":"a","data":null}}"#,
            422,
            "event-invalid",
        ),
        (large.as_str(), 413, "too-large"),
    ] {
        let told = refused(&mut socket, text).await;
        let text: String = text.chars().take(100).collect();
        assert_eq!(told["error"]["status"], status, "{text}: {told}");
        assert_eq!(
            told["error"]["type"],
            format!("/problems/{kind}"),
            "{text}: {told}"
        );
    }
    let told = refused(
        &mut socket,
        r#"{"ref":"7","publish":{"topic":"a","dat":1}}"#,
    )
    .await;
    assert_eq!(told["ref"], "7");
    socket.subscribe("a", &["witness"]).await;
    hub.unharmed("bad messages").await;
    assert_eq!(socket.data("a", 1).await, ["sentinel 0"]);
    let told = refused(&mut socket, r#"{"subscribe":{"sub":"a","topics":["x"]}}"#).await;
    assert_eq!(told["error"]["type"], "/problems/message-invalid");
    hub.stop().await;
}

#[tokio::test]
async fn a_connection_has_so_many_topics_over_all_its_subscriptions() {
    let mut hub = Witness::with(|config| config.subscribe.filters_max = 5).await;
    let mut socket = Socket::open(&hub, "/ws?topic=a&topic=b").await;
    socket.next().await;
    socket.subscribe("two", &["c", "d/*"]).await;
    for topics in [&["e", "f"][..], &["1", "2", "3", "4", "5", "6"]] {
        socket
            .send(json!({ "ref": "x", "subscribe": { "sub": "more", "topics": topics } }))
            .await;
        let told = socket.next().await;
        assert_eq!(
            (&told["ref"], &told["error"]["status"]),
            (&json!("x"), &json!(400)),
            "{told}"
        );
        let detail = told["error"]["detail"].as_str().unwrap();
        assert!(detail.contains('5'), "{detail}");
    }
    socket.subscribe("three", &["e"]).await;
    socket
        .send(json!({ "unsubscribe": { "sub": "two" } }))
        .await;
    socket.next().await;
    socket.subscribe("four", &["e", "f"]).await;
    hub.unharmed("too many subscriptions").await;
    hub.stop().await;
}

#[tokio::test]
async fn what_is_no_message_closes_the_connection_with_a_code() {
    let mut hub = Witness::with(|config| config.publish.event_bytes_max = 1_000).await;
    // Heads of frames are masked with zeros, so that what follows is sent as it is.
    let masked = |first: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        assert!(length < 126);
        [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
    };
    // More than 6 times `event_bytes_max` and 16 KiB.
    let large = 6 * 1_000 + (16 << 10) + 1_u64;
    let large = [&[0x81, 0xff][..], &large.to_be_bytes(), &[0; 4]].concat();
    let in_parts = {
        let part = [&[0x01, 0xfe, 0x40, 0x00, 0, 0, 0, 0][..], &[b'x'; 0x4000]].concat();
        let next = [&[0x00, 0xfe, 0x40, 0x00, 0, 0, 0, 0][..], &[b'x'; 0x4000]].concat();
        [part, next].concat()
    };
    for (what, bytes, code) in [
        ("binary", masked(0x82, b"{}"), 1003),
        ("not UTF-8", masked(0x81, b"\xff"), 1007),
        ("cut UTF-8", masked(0x81, b"\xe2\x82"), 1007),
        ("too large", large, 1009),
        ("too large in parts", in_parts, 1009),
        ("not masked", b"\x81\x02{}".to_vec(), 1002),
        ("a reserved bit", masked(0xc1, b"{}"), 1002),
        ("a reserved opcode", masked(0x83, b"{}"), 1002),
        ("a reserved control opcode", masked(0x8b, b""), 1002),
        ("a control frame in parts", masked(0x09, b""), 1002),
        (
            "a large ping",
            [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat(),
            1002,
        ),
        ("a continuation of nothing", masked(0x80, b"{}"), 1002),
        (
            "a message within another",
            [masked(0x01, b"{"), masked(0x81, b"{}")].concat(),
            1002,
        ),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1002),
    ] {
        let mut socket = Socket::open(&hub, "/ws?topic=elsewhere").await;
        socket.next().await;
        socket.inner.get_mut().write_all(&bytes).await.unwrap();
        let (before, told, reason) = socket.closed().await;
        assert_eq!((told, before.len()), (code, 0), "{what}: {reason}");
        hub.unharmed(what).await;
    }
    // Whoever goes without a word, in the middle of a frame or not, leaves nothing behind.
    for bytes in [&b""[..], b"\x81", b"\x81\xfe\x40\x00\0\0\0\0{"] {
        let mut socket = Socket::open(&hub, "/ws?topic=elsewhere").await;
        socket.next().await;
        socket.inner.get_mut().write_all(bytes).await.unwrap();
        drop(socket);
    }
    hub.unharmed("those who went").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_close_is_answered_and_the_connection_ends() {
    let mut hub = Witness::start().await;
    let mut socket = Socket::open(&hub, "/ws").await;
    let tcp = socket.inner.get_mut();
    // 1000, "bye".
    tcp.write_all(b"\x88\x85\0\0\0\0\x03\xe8bye").await.unwrap();
    let mut all = Vec::new();
    let read = tokio::time::timeout(DEADLINE, tcp.read_to_end(&mut all)).await;
    read.expect("closed in time").unwrap();
    assert_eq!(all, b"\x88\x05\x03\xe8bye");
    hub.unharmed("a close").await;
    hub.stop().await;
}
