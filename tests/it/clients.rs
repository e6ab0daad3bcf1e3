//! Replay, gaps and resuming as real clients see them.

use crate::support::{
    client::{Client, Library, Message},
    hub::HubProcess,
    stream::PATIENCE,
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Keeps everything that these tests publish.
const KEEP_ALL: &str = r#"
    [[log.retention]]
    topics = "**"
    age_max = "7d"
    events_max = 1_000_000
    bytes_max = "1GiB"
"#;
const KEEP_1000: &str = r#"
    [[log.retention]]
    topics = "**"
    age_max = "7d"
    events_max = 1000
    bytes_max = "1GiB"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_events_are_replayed_from_the_first() {
    let (mut large, mut small) = (HubProcess::start(KEEP_ALL), HubProcess::start(KEEP_ALL));
    let mut ids = Vec::new();
    for page in 0..10 {
        let numbers = page * 10_000 + 1..=(page + 1) * 10_000;
        ids.extend(large.publish_numbers("numbers", numbers).await);
    }
    assert_eq!(ids.len(), 100_000);
    let few = small.publish_numbers("numbers", 1..=100).await;
    large.terminate();
    large.start_again();
    small.terminate();
    small.start_again();

    // The least of many tries, taken in turns: what is left is the hubs' own time.
    let (mut of_large, mut of_small) = (Duration::MAX, Duration::MAX);
    for _ in 0..25 {
        of_small = of_small.min(time_to_first_event(&small, &few[0], &few[1]));
        of_large = of_large.min(time_to_first_event(&large, &ids[0], &ids[1]));
    }
    assert!(
        of_large <= 3 * of_small,
        "{of_large:?} with 100,000 events, {of_small:?} with 100",
    );

    let expected: Vec<_> = (2..).zip(&ids[1..]).map(number).collect();
    assert_eq!(expected.len(), 99_999);
    let mut curl = Client::curl(&large.events(&["numbers"], ""), Some(&ids[0]));
    curl.opened().await;
    assert!(curl.until("100000").await == expected, "by curl");
    drop(curl);
    let mut chromium = Client::chromium(&large.origin()).await;
    let url = large.events(&["numbers"], &format!("&last_event_id={}", ids[0]));
    chromium.open("", &url, Library::EventSource).await;
    assert!(chromium.until("100000").await == expected, "by Chromium");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_sees_that_what_it_asks_for_has_expired() {
    let hub = HubProcess::start(KEEP_1000);
    let ids = hub.publish_numbers("numbers", 1..=1500).await;
    until_kept(&hub, "numbers", 1000, "1500").await;

    let mut chromium = Client::chromium(&hub.origin()).await;
    let url = hub.events(&["numbers"], &format!("&last_event_id={}", ids[99]));
    chromium.open("", &url, Library::EventSource).await;
    let gap = gap(&chromium.message().await);
    assert_eq!(gap["reason"], "expired");
    assert_eq!(gap["requested"], ids[99]);
    assert_eq!(gap["oldest"], ids[500]);
    assert!(gap["missed"].is_null() || gap["missed"] == 400, "{gap}");
    let expected: Vec<_> = (501..).zip(&ids[500..]).map(number).collect();
    assert_eq!(expected.len(), 1000);
    assert_eq!(chromium.until("1500").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_sees_that_the_log_is_another_one() {
    let mut hub = HubProcess::start("");
    let url = hub.events(&["demo"], "");
    let mut chromium = Client::chromium(&hub.origin()).await;
    chromium.open("", &url, Library::EventSource).await;
    let before = hub.publish("demo", "before").await;
    assert_eq!(chromium.message().await, Message::new(&before, "before"));

    hub.kill();
    hub.wipe();
    // Published where nobody listens, so that it is there when Chromium comes back.
    hub.start_elsewhere();
    let after = hub.publish("demo", "after").await;
    hub.terminate();
    hub.start_again();
    let gap = gap(&chromium.message().await);
    assert_eq!(gap["reason"], "epoch");
    assert_eq!(gap["requested"], before);
    assert_eq!(gap["oldest"], after);
    assert_eq!(chromium.message().await, Message::new(&after, "after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_topic_makes_no_false_gap_for_a_quiet_one() {
    let hub = HubProcess::start(KEEP_1000);
    let quiet_1 = hub.publish("pair/quiet", "quiet 1").await;
    let busy = hub.publish_numbers("pair/busy", 1..=1500).await;
    let quiet_2 = hub.publish("pair/quiet", "quiet 2").await;
    until_kept(&hub, "pair/busy", 1000, "1500").await;

    let quiet = Message::new(&quiet_2, "quiet 2");
    let kept: Vec<_> = (501..).zip(&busy[500..]).map(number).collect();
    let kept_and_quiet: Vec<_> = kept.into_iter().chain([quiet]).collect();
    assert_eq!(kept_and_quiet.len(), 1001);
    let filters: [&[&str]; 3] = [&["pair/busy", "pair/quiet"], &["pair/*"], &["pair/**"]];

    let mut chromium = Client::chromium(&hub.origin()).await;
    let mut see = async |topics: &[&str], last: &str| {
        let url = hub.events(topics, &format!("&last_event_id={last}"));
        chromium.open(last, &url, Library::EventSource).await;
        let seen = chromium.until_of(last, "quiet 2").await;
        chromium.close(last).await;
        seen
    };
    // The quiet topic alone lost nothing, however old the id.
    assert_eq!(see(&["pair/quiet"], &quiet_1).await, kept_and_quiet[1000..]);
    for topics in filters {
        // Nothing was removed after the last removed event, nor after a kept one.
        assert_eq!(see(topics, &busy[499]).await, kept_and_quiet);
        assert_eq!(see(topics, &busy[999]).await, kept_and_quiet[500..]);
        // Before the last removed one, it was.
        let seen = see(topics, &busy[498]).await;
        assert_eq!(gap(&seen[0])["reason"], "expired");
        assert_eq!(seen[1..], kept_and_quiet);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_on_a_silent_topic_misses_nothing_over_a_restart() {
    let mut hub = HubProcess::start("");
    hub.publish("other", "so that the log is not empty").await;
    let mut chromium = Client::chromium(&hub.origin()).await;
    let url = hub.events(&["silent"], "");
    for stop in [HubProcess::terminate, HubProcess::kill] {
        let stream = hub.publish("other", "a name for the stream").await;
        chromium.open(&stream, &url, Library::EventSource).await;
        stop(&mut hub);
        // Published before Chromium can be back, however quick it is.
        hub.start_elsewhere();
        let id = hub.publish("silent", "while you were away").await;
        hub.terminate();
        hub.start_again();
        let expected = Message::new(&id, "while you were away");
        assert_eq!(without_close(&mut chromium, &stream).await, expected);
        chromium.close(&stream).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polyfill_and_fetch_event_source_resume_and_see_no_empty_message() {
    let mut hub = HubProcess::start("");
    let url = hub.events(&["demo/*"], "");
    let mut here = Client::chromium(&hub.origin()).await;
    let mut elsewhere = Client::chromium_elsewhere(&hub.origin()).await;
    let streams = [
        ("polyfill", Library::Polyfill),
        ("fetch", Library::FetchEventSource),
        ("own", Library::EventSource),
    ];
    for chromium in [&mut here, &mut elsewhere] {
        for (stream, library) in streams {
            chromium.open(stream, &url, library).await;
        }
    }

    let mut expected = Vec::new();
    for round in 0..3 {
        for n in 0..3 {
            let data = format!("round {round}, {n}");
            let id = hub.publish("demo/a", &data).await;
            expected.push(Message::new(&id, &data));
        }
        let last = &expected[expected.len() - 1];
        for chromium in [&mut here, &mut elsewhere] {
            for (stream, _) in streams {
                let seen = chromium.until_of(stream, &last.data).await;
                assert_eq!(seen, expected, "{stream}");
            }
        }
        if round == 2 {
            break;
        }
        hub.kill();
        hub.start_elsewhere();
        let id = hub.publish("demo/b", "while you were away").await;
        hub.terminate();
        hub.start_again();
        expected = vec![Message::new(&id, "while you were away")];
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_a_newcomer_around() {
    let mut hub = HubProcess::start("");
    let mut walk = Client::page_walk(&hub.origin());
    walk.opened().await;
    hub.terminate();
    hub.wipe();
    hub.start_again();
    walk.ended_well().await;
}

fn number((n, id): (u32, &String)) -> Message {
    Message::new(id, &n.to_string())
}

#[track_caller]
fn gap(message: &Message) -> serde_json::Value {
    assert_eq!(message.event, "tidings.gap", "{message:?}");
    serde_json::from_str(&message.data).expect("JSON")
}

/// The next message after the hub's good-bye, if it said one.
async fn without_close(chromium: &mut Client, stream: &str) -> Message {
    let message = chromium.message_of(stream).await;
    if message.event == "tidings.close" {
        return chromium.message_of(stream).await;
    }
    message
}

/// Waits until retention has left so many events of the topic; `last` is the data of the newest.
async fn until_kept(hub: &HubProcess, topic: &str, kept: usize, last: &str) {
    let url = hub.events(&[topic], "&since=earliest");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut curl = Client::curl(&url, None);
        curl.opened().await;
        let seen = curl.until(last).await.len();
        if seen == kept {
            return;
        }
        assert!(seen > kept, "{seen} events kept, {kept} wanted");
        assert!(Instant::now() < deadline, "{seen} events kept for long");
    }
}

/// From the request to the last byte of the first replayed event's id. The connection is there before.
fn time_to_first_event(hub: &HubProcess, last_event_id: &str, first: &str) -> Duration {
    let address = hub.origin().replace("http://", "");
    let mut connection = TcpStream::connect(&address).expect("a connection");
    let request = format!(
        "GET /topics/numbers HTTP/1.1\r\nHost: {address}\r\nLast-Event-ID: {last_event_id}\r\n\r\n"
    );
    let wanted = format!("id: {first}\n");
    connection
        .set_read_timeout(Some(PATIENCE))
        .expect("a limit");
    let start = Instant::now();
    connection.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains(&wanted) {
        let read = connection.read(&mut buffer).expect("an answer");
        // What keeps the connection alive comes all the time.
        let goes_on = read > 0 && start.elapsed() < PATIENCE;
        assert!(goes_on, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    start.elapsed()
}
