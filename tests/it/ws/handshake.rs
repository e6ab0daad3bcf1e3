//! Who may open a WebSocket, and with what.

use crate::support::{
    server::{Answer, TestServer},
    stream::DEADLINE,
    wait::in_time,
    witness::{Witness, check},
    ws::Socket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A handshake but for one header, which has another value or none.
async fn with(hub: &TestServer, path: &str, name: &str, value: Option<&str>) -> Answer {
    let mut raw = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", hub.address);
    for (known, usual) in HANDSHAKE {
        let value = if known == name { value } else { Some(usual) };
        if let Some(value) = value {
            raw += &format!("{known}: {value}\r\n");
        }
    }
    if !HANDSHAKE.iter().any(|(known, _)| *known == name) {
        raw += &value.map_or(String::new(), |value| format!("{name}: {value}\r\n"));
    }
    // What is refused leaves the connection as it was.
    raw += "\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let all = hub.raw(raw.as_bytes()).await;
    let text = String::from_utf8_lossy(&all);
    let (first, second) = text.split_at(text.rfind("HTTP/1.1 ").unwrap());
    assert!(
        second.starts_with("HTTP/1.1 200") && second.ends_with("ok\n"),
        "{text}"
    );
    Answer::parse(first.as_bytes())
}

#[tokio::test]
async fn the_key_is_answered_and_the_subprotocol_is_selected_if_it_is_offered() {
    let hub = TestServer::start().await;
    let mut raw = format!("GET /ws HTTP/1.1\r\nHost: {}\r\n", hub.address);
    for (name, value) in HANDSHAKE {
        raw += &format!("{name}: {value}\r\n");
    }
    let mut tcp = hub.connect().await;
    tcp.write_all(format!("{raw}\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = vec![0; 2_000];
    let read = in_time(DEADLINE, "an answer", tcp.read(&mut head));
    let count = read.await.unwrap();
    let head = String::from_utf8_lossy(&head[..count]).to_ascii_lowercase();
    // The example of RFC 6455.
    for line in [
        "http/1.1 101 ",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
        "connection: upgrade\r\n",
    ] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
    for offered in ["tidings.v1", "graphql-ws, tidings.v1", "tidings.v1,other"] {
        let offer = [("Sec-WebSocket-Protocol", offered)];
        let socket = Socket::try_open(&hub, "/ws", &offer).await.unwrap();
        assert_eq!(
            socket.subprotocol.as_deref(),
            Some("tidings.v1"),
            "{offered}"
        );
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_client_need_not_wait_for_the_answer() {
    let hub = TestServer::start().await;
    let mut raw = format!("GET /ws HTTP/1.1\r\nHost: {}\r\n", hub.address);
    for (name, value) in HANDSHAKE {
        raw += &format!("{name}: {value}\r\n");
    }
    // A message, masked with zeros, and a close right behind the handshake.
    let asked = r#"{"publish":{"topic":"a","data":"early"}}"#;
    let length = 0x80 | u8::try_from(asked.len()).unwrap();
    let frames = [
        &[0x81, length, 0, 0, 0, 0],
        asked.as_bytes(),
        b"\x88\x80\0\0\0\0",
    ]
    .concat();
    let all = hub.raw(&[raw.as_bytes(), b"\r\n", &frames].concat()).await;
    // The close is answered, and the connection ends.
    assert!(
        all.starts_with(b"HTTP/1.1 101 ") && all.ends_with(b"\x88\x00"),
        "{all:?}"
    );
    let mut stream = hub.subscribe("/topics/a?since=earliest").await;
    assert_eq!(stream.next().await.data, "early");
    hub.stop().await;
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_in_words() {
    let mut hub = Witness::start().await;
    let upgrade = (426, "upgrade-required", "WebSocket");
    let version = (426, "upgrade-required", "13");
    let key = (400, "header-invalid", "`Sec-WebSocket-Key`");
    for (name, value, expected) in [
        ("Connection", None, upgrade),
        ("Connection", Some("keep-alive"), upgrade),
        ("Upgrade", None, upgrade),
        ("Upgrade", Some("h2c"), upgrade),
        ("Sec-WebSocket-Version", None, version),
        ("Sec-WebSocket-Version", Some("8"), version),
        ("Sec-WebSocket-Key", None, key),
        ("Sec-WebSocket-Key", Some("short"), key),
        ("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZQ"), key),
        ("Sec-WebSocket-Key", Some("dGhlIHNhb*BsZSBub25jZQ=="), key),
        (
            "Sec-WebSocket-Protocol",
            Some("graphql-ws"),
            (400, "header-invalid", "`tidings.v1`"),
        ),
        (
            "Sec-WebSocket-Protocol",
            Some("tidings.v2, TIDINGS.V1"),
            (400, "header-invalid", "`tidings.v1`"),
        ),
    ] {
        let answer = with(&hub, "/ws?topic=a", name, value).await;
        check(&answer, expected, &format!("{name}: {value:?}"));
        if expected.0 == 426 {
            assert_eq!(answer.header("upgrade"), Some("websocket"), "{answer:?}");
            assert_eq!(
                answer.header("sec-websocket-version"),
                Some("13"),
                "{answer:?}"
            );
        }
    }
    for (query, expected) in [
        ("?topic=a/**/b", (400, "filter-invalid", "a/**/b")),
        ("?topic=", (400, "filter-invalid", "")),
        ("?lag=latest", (400, "filter-invalid", "`topic`")),
        ("?tail=1", (400, "filter-invalid", "`topic`")),
        ("?topic=a&tail=x", (400, "parameter-invalid", "`tail`")),
        ("?topic=a&lag=never", (400, "parameter-invalid", "`lag`")),
        (
            "?topic=a&lag=gap&lag=gap",
            (400, "parameter-invalid", "`lag`"),
        ),
        (
            "?topics=a",
            (400, "parameter-unknown", "did you mean `topic`?"),
        ),
        ("?topic=a&frame=data", (400, "parameter-unknown", "`frame`")),
    ] {
        let answer = with(&hub, &format!("/ws{query}"), "", None).await;
        check(&answer, expected, query);
    }
    let answer = hub.get("/ws?topic=a", &[]).await;
    check(&answer, upgrade, "no header");
    assert_eq!(hub.ask("HEAD", "/ws", &[], Vec::new()).await.status, 426);
    assert_eq!(hub.post("/ws", &[], "x").await.status, 405);
    // Another route becomes no WebSocket, whatever is asked.
    assert_eq!(with(&hub, "/healthz", "", None).await.status, 200);
    hub.unharmed("handshakes").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_opens_none() {
    let mut hub = Witness::with(|config| {
        config.server.origins = vec!["https://app.example.com".to_owned()];
        config.server.hosts = vec!["hub.example.com".to_owned()];
    })
    .await;
    for origin in [
        "https://evil.example",
        "null",
        "",
        "http://10.0.0.1",
        "https://app.example.com:8443",
    ] {
        for site in ["cross-site", "same-site"] {
            let headers = [("Origin", origin), ("Sec-Fetch-Site", site)];
            let refused = Socket::try_open(&hub, "/ws?topic=a", &headers)
                .await
                .err()
                .unwrap();
            assert_eq!(
                (refused.status, refused.problem().as_str()),
                (403, "origin-refused"),
                "{origin}"
            );
        }
        let answer = with(&hub, "/ws", "Origin", Some(origin)).await;
        assert_eq!(answer.problem(), "origin-refused");
    }
    let host = [("Host", "evil.example"), ("Origin", "http://evil.example")];
    let refused = Socket::try_open(&hub, "/ws", &host).await.err().unwrap();
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (421, "host-refused")
    );
    let own = format!("http://{}", hub.address);
    for origin in [
        "https://app.example.com",
        "http://localhost:3000",
        own.as_str(),
    ] {
        let opened = Socket::try_open(&hub, "/ws", &[("Origin", origin)]).await;
        assert!(opened.is_ok(), "{origin}");
    }
    let behind_a_proxy = [
        ("Origin", "https://dashboard.example"),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    assert!(Socket::try_open(&hub, "/ws", &behind_a_proxy).await.is_ok());
    hub.unharmed("foreign origins").await;
    hub.stop().await;
}
