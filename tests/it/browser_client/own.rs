//! What one tab has of its own: its cursor, its gaps, its answers.

use super::{Tabs, numbers, publish, until_streams};
use crate::support::{
    client::{Client, Message},
    hub::HubProcess,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reloaded_tab_goes_on_where_it_was() {
    let hub = HubProcess::start("");
    let mut tabs = Tabs::of(&hub.origin()).await;
    let both = ["stays".to_owned(), "goes".to_owned()];
    for tab in &both {
        tabs.open(tab, &["demo"], json!({})).await;
    }
    let before = publish(&hub, "demo", numbers("before", 10)).await;
    tabs.see(&both, &before).await;
    for round in 0..3 {
        let numbers = numbers(&format!("round {round}"), 300);
        tabs.ask(&json!({"again": "goes"}));
        let published = publish(&hub, "demo", numbers).await;
        tabs.see(&both, &published).await;
    }
    // One that was ended begins anew.
    tabs.ask(&json!({"end": "goes"}));
    tabs.0.closed_of("goes").await;
    let meanwhile = publish(&hub, "demo", numbers("meanwhile", 3)).await;
    tabs.open("goes", &["demo"], json!({})).await;
    let after = publish(&hub, "demo", numbers("after", 3)).await;
    tabs.see(&both[1..], &after).await;
    tabs.see(&both[..1], &[meanwhile, after].concat()).await;
    until_streams(&hub, "demo", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_told_to_whom_it_concerns() {
    let keep_10 = "[[log.retention]]\ntopics = \"busy\"\nage_max = \"7d\"\nevents_max = 10\nbytes_max = \"1GiB\"";
    let mut hub = HubProcess::start(keep_10);
    let mut tabs = Tabs::of(&hub.origin()).await;
    let (busy, quiet) = (["busy".to_owned()], ["quiet".to_owned()]);
    tabs.open("busy", &["busy"], json!({})).await;
    tabs.open("quiet", &["quiet"], json!({})).await;
    let (b1, q1) = (
        publish(&hub, "busy", numbers("b", 1)).await,
        publish(&hub, "quiet", numbers("q", 1)).await,
    );
    tabs.see(&busy, &b1).await;
    tabs.see(&quiet, &q1).await;

    hub.kill();
    hub.start_elsewhere();
    let b2 = publish(&hub, "busy", numbers("more b", 30)).await;
    let q2 = publish(&hub, "quiet", numbers("more q", 1)).await;
    hub.terminate();
    hub.start_again();
    let gap = gap(&tabs.0.message_of("busy").await);
    assert_eq!(gap["reason"], "expired");
    assert!(gap["missed"].is_null() || gap["missed"] == 20, "{gap}");
    tabs.see(&busy, &b2[20..]).await;
    tabs.see(&quiet, &q2).await;

    // Another log concerns all.
    hub.kill();
    hub.wipe();
    hub.start_again();
    for tab in ["busy", "quiet"] {
        assert_eq!(self::gap(&tabs.0.message_of(tab).await)["reason"], "epoch");
    }
    let b3 = publish(&hub, "busy", numbers("of another log", 3)).await;
    tabs.see(&busy, &b3).await;
    until_streams(&hub, "busy", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final_and_concerns_nobody_else() {
    let hub = HubProcess::start("[subscribe]\nfilters_max = 3");
    let mut tabs = Tabs::of(&hub.origin()).await;
    tabs.open("good", &["a", "b"], json!({})).await;
    tabs.ask(&json!({"open": "bad", "topics": ["a/**/b"]}));
    let refused = tabs.state("bad", "refused", |_| true).await;
    assert!(
        refused["problem"]["detail"]
            .as_str()
            .expect("words")
            .contains("a/**/b"),
        "{refused}"
    );
    let published = publish(&hub, "a", numbers("a", 3)).await;
    tabs.see(&["good".to_owned()], &published).await;

    // Topics that are too many together get streams of their own.
    tabs.open("more", &["c", "d"], json!({})).await;
    until_streams(&hub, "c", 1).await;
    until_streams(&hub, "a", 1).await;
    let (a, c) = (
        publish(&hub, "a", numbers("more a", 3)).await,
        publish(&hub, "c", numbers("c", 3)).await,
    );
    tabs.see(&["good".to_owned()], &a).await;
    tabs.see(&["more".to_owned()], &c).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_not_secure_has_a_connection_of_its_own() {
    let hub = HubProcess::start("[server]\nhosts = [\"hub.test\"]");
    let origin = hub.origin().replace("127.0.0.1", "hub.test");
    let flags = ["--host-resolver-rules=MAP hub.test 127.0.0.1"];
    let mut tabs = Tabs(Client::tabs(&origin, &flags).await);
    let both = ["one".to_owned(), "two".to_owned()];
    for tab in &both {
        tabs.open(tab, &["demo"], json!({})).await;
    }
    until_streams(&hub, "demo", 2).await;
    let published = publish(&hub, "demo", numbers("each", 20)).await;
    tabs.see(&both, &published).await;
    tabs.close("one").await;
    until_streams(&hub, "demo", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_another_origin_use_it_as_well() {
    let hub = HubProcess::start("");
    let mut tabs = Tabs(Client::tabs(&hub.origin(), &["--elsewhere"]).await);
    let both = ["one".to_owned(), "two".to_owned()];
    for tab in &both {
        tabs.open(tab, &["demo"], json!({})).await;
    }
    let stored = tabs
        .asked(json!({"publish": "two", "topic": "demo", "data": "hello"}))
        .await;
    let expected = [Message::new(stored["id"].as_str().expect("an id"), "hello")];
    tabs.see(&both, &expected).await;
    until_streams(&hub, "demo", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tab_publishes_comes_back_once() {
    let mut hub = HubProcess::start("");
    let mut tabs = Tabs::of(&hub.origin()).await;
    tabs.open("tab", &["a/b"], json!({})).await;
    let stored = tabs
        .asked(json!({"publish": "tab", "topic": "a/b", "data": {"n": 1}}))
        .await;
    let expected = Message::new(stored["id"].as_str().expect("an id"), r#"{"n":1}"#);
    assert_eq!(tabs.0.message_of("tab").await, expected);
    let refused = tabs
        .asked(json!({"publish": "tab", "topic": "tidings.mine", "data": "x"}))
        .await;
    assert!(refused["problem"]["type"].is_string(), "{refused}");

    // It is sent again until the hub is back.
    hub.kill();
    tabs.ask(&json!({"publish": "tab", "topic": "a/b", "data": "patient"}));
    tabs.state("tab", "waiting", |_| true).await;
    hub.start_again();
    let stored: Value = serde_json::from_str(&tabs.0.message_of("").await.data).expect("JSON");
    let expected = Message::new(stored["id"].as_str().expect("an id"), "patient");
    assert_eq!(tabs.0.message_of("tab").await, expected);
}

#[track_caller]
fn gap(message: &Message) -> Value {
    assert_eq!(message.event, "tidings.gap", "{message:?}");
    serde_json::from_str(&message.data).expect("JSON")
}
