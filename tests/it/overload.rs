//! A hub with all the connections it may have: who comes is told when to come back.

use crate::support::{
    server::TestServer,
    stream::{DEADLINE, Stream},
    wait::wait_until,
};
use tokio::{io::AsyncReadExt, time::timeout};

/// Opens a stream that may be turned away.
async fn try_stream(hub: &TestServer) -> Stream {
    let stream = hub.subscribe("/topics/a").await;
    assert_eq!(
        stream.status(),
        200,
        "an error status would end an EventSource for ever"
    );
    stream
}

#[tokio::test]
async fn a_hub_without_room_says_when_to_come_back() {
    let hub = TestServer::with(|config| config.server.connections_max = 3).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = try_stream(&hub).await;
        stream.until(": tidings\n").await;
        streams.push(stream);
    }
    for _ in 0..100 {
        let mut away = try_stream(&hub).await;
        let told = away.rest().await;
        assert_eq!(told.len(), 1, "{}", away.text);
        assert_eq!(
            (told[0].event.as_str(), told[0].data.as_str()),
            ("tidings.close", r#"{"reason":"overloaded"}"#)
        );
        assert_eq!(told[0].id, "");
        let retry = away
            .text
            .strip_prefix("retry: ")
            .and_then(|text| text.split_once('\n'))
            .unwrap()
            .0;
        assert!(
            (1_000..=10_000).contains(&retry.parse::<u32>().unwrap()),
            "{}",
            away.text
        );
    }
    for (method, path) in [
        ("POST", "/topics/a"),
        ("GET", "/readyz"),
        ("GET", "/"),
        ("HEAD", "/topics/a"),
        ("GET", "/topics/a?format=ndjson"),
        ("GET", "/topics/a?format=json"),
        ("GET", "/topics/a?format=html"),
        ("DELETE", "/events"),
    ] {
        let answer = hub.ask(method, path, &[], b"x".to_vec()).await;
        assert_eq!(answer.status, 503, "{method} {path}");
        assert!(
            answer
                .header("retry-after")
                .unwrap()
                .parse::<u32>()
                .unwrap()
                > 0
        );
        if method != "HEAD" {
            assert_eq!(answer.problem(), "overloaded");
        }
    }
    assert_eq!(hub.get("/healthz", &[]).await.status, 200, "it lives");
    // A connection that is beyond the cap and idle does not stay there; meanwhile the others are served.
    let mut idle = hub.connect().await;
    drop(streams.pop());
    let resumed = async {
        loop {
            let answer = hub.post("/topics/a", &[], "room again").await;
            if answer.status == 201 {
                break;
            }
            assert_eq!(answer.status, 503);
        }
    };
    timeout(DEADLINE, resumed)
        .await
        .expect("room again in time");
    for stream in &mut streams {
        assert_eq!(stream.next().await.data, "room again");
    }
    let mut said = Vec::new();
    let _ = timeout(DEADLINE, idle.read_to_end(&mut said))
        .await
        .expect("closed in time");
    assert_eq!(said, b"");
    drop(streams);
    wait_until("the streams are gone", || hub.server.hub().feeds() == 0).await;
    hub.stop().await;
}
