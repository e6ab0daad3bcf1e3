//! The main job, on real input: GitHub's 329 example webhooks of 58 events, from POST to real clients.

use crate::support::{
    client::{Client, Library, Message, github_payloads},
    hub::HubProcess,
};
use std::collections::BTreeSet;

const FILTER: &str = "github/*";
/// Published after everything else: what a client saw until then is all that it saw.
const SENTINEL: &str = "that was all of them";

/// An event that was published: its message, and what it takes to publish it again.
struct Sent {
    topic: String,
    key: String,
    message: Message,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_gets_each_webhook_once_and_in_order() {
    let payloads = payloads();
    let hub = HubProcess::start("");
    let url = hub.events(&[FILTER], "");
    let mut chromium = Client::chromium(&hub.origin()).await;
    chromium.open("", &url, Library::EventSource).await;
    let mut clients = vec![
        Client::curl(&url, None),
        Client::eventsource(&url),
        Client::httpx_sse(&url, None),
    ];
    for client in &mut clients {
        client.opened().await;
    }
    clients.push(chromium);

    let mut sent = Vec::new();
    for payload in payloads.iter().enumerate() {
        sent.push(post(&hub, payload).await);
    }
    let expected = with_sentinel(&hub, &sent).await;
    assert_eq!(expected.len(), 330);
    for client in &mut clients {
        assert_same(&client.until(SENTINEL).await, &expected);
    }

    post_again(&hub, &sent).await;
    let id = hub.publish("github/sentinel", "nothing else").await;
    for client in &mut clients {
        assert_eq!(client.message().await, Message::new(&id, "nothing else"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_halfway_loses_nothing() {
    let payloads = payloads();
    let half = payloads.len() / 2;
    let mut hub = HubProcess::start("");
    let url = hub.events(&[FILTER], "");
    let mut chromium = Client::chromium(&hub.origin()).await;
    chromium.open("", &url, Library::EventSource).await;
    let mut clients = vec![
        chromium,
        Client::eventsource(&url),
        Client::curl(&url, None),
        Client::httpx_sse(&url, None),
    ];
    for client in &mut clients[1..] {
        client.opened().await;
    }

    let mut sent = Vec::new();
    for payload in payloads.iter().enumerate().take(half) {
        sent.push(post(&hub, payload).await);
        if sent.len() == 1 {
            for client in &mut clients {
                assert_eq!(client.message().await, sent[0].message);
            }
        }
    }

    // Killed while a publish is under way. Whether it was stored is known only by asking again with
    // its key.
    let (topic, body) = &payloads[half];
    hub.kill_while_publishing(topic, body, "webhook-cut-off");
    hub.start_again();
    let (status, published) = hub
        .post(topic, body, Some("webhook-cut-off"))
        .await
        .expect("an answer");
    assert_eq!(status, if published.duplicate { 200 } else { 201 });
    sent.push(Sent {
        topic: topic.clone(),
        key: "webhook-cut-off".to_owned(),
        message: Message::new(&published.id, body),
    });
    for payload in payloads.iter().enumerate().skip(half + 1) {
        sent.push(post(&hub, payload).await);
    }
    let expected = with_sentinel(&hub, &sent).await;
    assert_eq!(expected.len(), 330);

    // Those that come back by themselves have it all.
    for client in &mut clients[..2] {
        assert_same(&client.until(SENTINEL).await, &expected[1..]);
    }
    // The others have a clean beginning, and get the rest when started again with their last id.
    let starts: [fn(&str, Option<&str>) -> Client; 2] = [Client::curl, Client::httpx_sse];
    for (mut ended, start) in clients.drain(2..).zip(starts) {
        let mut beginning = vec![sent[0].message.clone()];
        beginning.extend(ended.until_lost().await);
        let (seen, rest) = expected.split_at(beginning.len());
        assert_same(&beginning, seen);
        let mut client = start(&url, Some(&seen[seen.len() - 1].id));
        client.opened().await;
        assert_same(&client.until(SENTINEL).await, rest);
    }

    // From the middle: exactly the rest.
    let mut rest = Client::curl(&url, Some(&expected[100].id));
    rest.opened().await;
    assert_same(&rest.until(SENTINEL).await, &expected[101..]);
    clients.push(rest);

    post_again(&hub, &sent).await;
    let id = hub.publish("github/sentinel", "nothing else").await;
    for client in &mut clients {
        assert_eq!(client.message().await, Message::new(&id, "nothing else"));
    }
}

fn payloads() -> Vec<(String, String)> {
    let payloads = github_payloads();
    let topics: BTreeSet<_> = payloads.iter().map(|(topic, _)| topic).collect();
    assert_eq!((payloads.len(), topics.len()), (329, 58));
    payloads
}

async fn post(hub: &HubProcess, (index, (topic, body)): (usize, &(String, String))) -> Sent {
    let key = format!("webhook-{index}");
    let (status, published) = hub.post(topic, body, Some(&key)).await.expect("an answer");
    assert_eq!((status, published.duplicate), (201, false));
    Sent {
        topic: topic.clone(),
        key,
        message: Message::new(&published.id, body),
    }
}

async fn post_again(hub: &HubProcess, sent: &[Sent]) {
    assert_eq!(sent.len(), 329);
    for Sent {
        topic,
        key,
        message,
    } in sent
    {
        let again = hub.post(topic, &message.data, Some(key)).await;
        let (status, published) = again.expect("an answer");
        assert_eq!((status, published.duplicate), (200, true));
        assert_eq!(published.id, message.id);
    }
}

async fn with_sentinel(hub: &HubProcess, sent: &[Sent]) -> Vec<Message> {
    let id = hub.publish("github/sentinel", SENTINEL).await;
    let messages = sent.iter().map(|one| one.message.clone());
    messages.chain([Message::new(&id, SENTINEL)]).collect()
}

/// Like `assert_eq`, but says where they part instead of printing megabytes.
#[track_caller]
fn assert_same(seen: &[Message], expected: &[Message]) {
    for (at, (seen, expected)) in seen.iter().zip(expected).enumerate() {
        assert_eq!(seen, expected, "message {at}");
    }
    assert_eq!(seen.len(), expected.len());
    assert!(!expected.is_empty());
}
