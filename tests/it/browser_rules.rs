//! Which web pages may use a hub, by their origin and by the name they call it.

use crate::support::{
    http2::Client,
    server::{Answer, TestServer},
    witness::Witness,
};

const OWN: &[&str] = &[
    "http://localhost:3000",
    "https://localhost",
    "http://app.localhost:5173",
    "http://127.0.0.1:9",
    "http://[::1]:8080",
    "https://app.example.com",
    "HTTPS://App.Example.com",
];

const FOREIGN: &[&str] = &[
    "https://evil.example",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.example",
    "http://localhost.evil.example",
    "http://10.0.0.1",
    "null",
    "",
    "garbage",
    "chrome-extension://abcdef",
];

async fn hub() -> Witness {
    Witness::with(|config| {
        config.server.origins = vec!["https://app.example.com".to_owned()];
        config.server.hosts = vec!["hub.example.com".to_owned()];
    })
    .await
}

fn is(answer: &Answer, status: u16, kind: &str) {
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (status, kind),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_cannot_publish() {
    let mut hub = hub().await;
    let json = ("Content-Type", "application/json");
    for origin in FOREIGN {
        let origin = ("Origin", *origin);
        for site in ["cross-site", "same-site"] {
            let answer = hub
                .post("/topics/a", &[origin, ("Sec-Fetch-Site", site)], "x")
                .await;
            is(&answer, 403, "origin-refused");
            assert!(answer.body.contains("`server.origins`"), "{}", answer.body);
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        is(
            &hub.post("/publish", &[origin, json], r#"{"topic":"a","data":1}"#)
                .await,
            403,
            "origin-refused",
        );
        let ndjson = ("Content-Type", "application/x-ndjson");
        is(
            &hub.post(
                "/publish",
                &[origin, ndjson],
                "{\"topic\":\"a\",\"data\":1}\n",
            )
            .await,
            403,
            "origin-refused",
        );
    }
    hub.unharmed("foreign origins").await;
    hub.stop().await;
}

#[tokio::test]
async fn welcome_pages_publish_and_read_the_answer() {
    let mut hub = hub().await;
    let same = format!("http://{}", hub.address);
    for origin in OWN.iter().copied().chain([same.as_str()]) {
        let answer = hub.post("/topics/a", &[("Origin", origin)], "x").await;
        assert_eq!(answer.status, 201, "{origin}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        hub.expect(&["x"], origin).await;
    }
    // Behind a proxy that changes the Host, the browser's own word counts.
    let own_page = [
        ("Origin", "https://dashboard.example"),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    assert_eq!(hub.post("/topics/a", &own_page, "x").await.status, 201);
    hub.expect(&["x"], "same-origin").await;
    // A page reads its errors, too.
    let refused = hub.get("/topics/a?tail=-1", &[("Origin", OWN[0])]).await;
    is(&refused, 400, "parameter-invalid");
    assert_eq!(refused.header("access-control-allow-origin"), Some(OWN[0]));
    hub.unharmed("welcome origins").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_preflight_says_what_a_page_may_send() {
    let hub = hub().await;
    let ask = async |origin: &str, path: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            (
                "Access-Control-Request-Headers",
                "idempotency-key,content-type",
            ),
        ];
        hub.ask("OPTIONS", path, &headers, Vec::new()).await
    };
    let list = |answer: &Answer, name: &str| {
        let list = answer.header(name).unwrap_or_default().to_ascii_lowercase();
        let mut list: Vec<String> = list.split(',').map(|item| item.trim().to_owned()).collect();
        list.sort_unstable();
        list.join(" ")
    };
    for path in ["/topics/a", "/publish", "/events?topic=a"] {
        for origin in OWN {
            let answer = ask(origin, path).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(*origin));
            assert_eq!(
                list(&answer, "access-control-allow-headers"),
                "authorization cache-control content-type idempotency-key if-none-match last-event-id prefer"
            );
            assert_eq!(
                list(&answer, "access-control-allow-methods"),
                "get head post"
            );
        }
        for origin in FOREIGN {
            let answer = ask(origin, path).await;
            assert_eq!(
                answer.header("access-control-allow-origin"),
                None,
                "{origin}"
            );
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn only_welcome_pages_read_a_stream() {
    let hub = hub().await;
    for (origins, welcome) in [(OWN, true), (FOREIGN, false)] {
        for origin in origins {
            let stream = hub.subscribe_with("/topics/a", &[("Origin", origin)]).await;
            let head = stream.head.to_ascii_lowercase();
            let allowed = format!(
                "access-control-allow-origin: {}\r\n",
                origin.to_ascii_lowercase()
            );
            assert_eq!(head.contains(&allowed), welcome, "{origin}: {head}");
            assert_eq!(
                head.contains("access-control-allow-origin"),
                welcome,
                "{origin}: {head}"
            );
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn headers_of_a_stream() {
    let hub = hub().await;
    for path in ["/topics/a", "/events?topic=a/*&topic=b"] {
        let stream = hub.subscribe(path).await;
        let head = stream.head.to_ascii_lowercase();
        for line in [
            "http/1.1 200 ok\r\n",
            "content-type: text/event-stream\r\n",
            "cache-control: no-store, no-transform\r\n",
            "x-accel-buffering: no\r\n",
            "vary: accept, origin\r\n",
        ] {
            assert_eq!(head.matches(line).count(), 1, "{line:?} in {head}");
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_name_that_somebody_pointed_at_loopback_is_not_the_hub() {
    let mut hub = hub().await;
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "hub.example.com.evil.example",
        "",
    ] {
        for path in [
            "/",
            "/events?topic=a",
            "/topics/a",
            "/healthz",
            "/problems/internal",
        ] {
            let answer = hub.get(path, &[("Host", host)]).await;
            is(&answer, 421, "host-refused");
            assert!(answer.body.contains("`server.hosts`"), "{}", answer.body);
        }
        // A page at that name is of the same origin as it.
        let headers = [
            ("Host", host),
            ("Origin", "http://evil.example"),
            ("Sec-Fetch-Site", "same-origin"),
        ];
        is(
            &hub.post("/topics/a", &headers, "x").await,
            421,
            "host-refused",
        );
    }
    let two = [("Host", "localhost"), ("Host", "evil.example")];
    is(&hub.get("/healthz", &two).await, 400, "request-invalid");
    hub.unharmed("foreign hosts").await;
    for host in [
        "localhost",
        "localhost:99",
        "a.localhost",
        "LocalHost.",
        "127.0.0.1",
        "[::1]:8080",
        "192.168.1.7:8080",
        "hub.example.com",
        "HUB.example.com:443",
    ] {
        assert_eq!(
            hub.get("/healthz", &[("Host", host)]).await.status,
            200,
            "{host}"
        );
    }
    hub.stop().await;
}

#[tokio::test]
async fn the_same_over_http2() {
    let hub = hub().await;
    let mut client = Client::connect(&hub).await;
    assert_eq!(client.get("/healthz").await.status(), 200);
    client.authority = "evil.example".to_owned();
    assert_eq!(client.get("/healthz").await.status(), 421);
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_beyond_loopback_has_any_name() {
    let mut hub = Witness::with(|config| config.listen = "0.0.0.0:0".parse().unwrap()).await;
    let answer = hub
        .post("/topics/a", &[("Host", "hub.example.com")], "x")
        .await;
    assert_eq!(answer.status, 201);
    hub.expect(&["x"], "any host").await;
    let foreign = [
        ("Host", "hub.example.com"),
        ("Origin", "https://evil.example"),
    ];
    is(
        &hub.post("/topics/a", &foreign, "x").await,
        403,
        "origin-refused",
    );
    hub.unharmed("foreign origin").await;
    hub.stop().await;
}

#[tokio::test]
async fn http_1_1_has_a_host() {
    let hub = TestServer::start().await;
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
    ] {
        let answer = Answer::parse(&hub.raw(head.as_bytes()).await);
        assert_eq!(answer.status, status, "{head}");
    }
}
