//! Several tabs: who leads, and what becomes of the others when it goes.

use super::{Tabs, names, numbers, publish, streams, until_streams};
use crate::support::hub::HubProcess;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_tabs_share_one_connection_and_each_sees_everything() {
    let hub = HubProcess::start("");
    let mut tabs = Tabs::of(&hub.origin()).await;
    let all = names(10);
    for tab in &all {
        tabs.open(tab, &["demo"], json!({})).await;
        assert_eq!(streams(&hub, "demo").await, 1, "{tab}");
    }
    let published = publish(&hub, "demo", numbers("first", 50)).await;
    tabs.see(&all, &published).await;
    tabs.leader().await;

    // The leader goes, again and again, while events come.
    let mut left = all;
    for round in ["second", "third", "fourth"] {
        let leader = tabs.leader().await;
        let numbers = numbers(round, 300);
        let (published, ()) = tokio::join!(publish(&hub, "demo", numbers), tabs.close(&leader));
        left.retain(|tab| *tab != leader);
        tabs.see(&left, &published).await;
    }
    assert_eq!(left.len(), 7);
    until_streams(&hub, "demo", 1).await;
    for tab in &left {
        tabs.close(tab).await;
    }
    until_streams(&hub, "demo", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_steps_down_and_misses_nothing() {
    let hub = HubProcess::start("");
    let mut tabs = Tabs::of(&hub.origin()).await;
    let all = names(3);
    for tab in &all {
        tabs.open(tab, &["demo"], json!({})).await;
    }
    let frozen = tabs.leader().await;
    tabs.asked(json!({"freeze": frozen})).await;
    let awake: Vec<_> = all.iter().filter(|tab| **tab != frozen).cloned().collect();
    let before = publish(&hub, "demo", numbers("while frozen", 100)).await;
    tabs.see(&awake, &before).await;
    until_streams(&hub, "demo", 1).await;

    tabs.asked(json!({"thaw": frozen})).await;
    let frozen = [frozen];
    tabs.see(&frozen, &before).await;
    let after = publish(&hub, "demo", numbers("awake", 100)).await;
    tabs.see(&all, &after).await;
    until_streams(&hub, "demo", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_is_replaced() {
    let hub = HubProcess::start("");
    let mut tabs = Tabs::of(&hub.origin()).await;
    let all = names(2);
    for tab in &all {
        tabs.open(tab, &["demo"], json!({})).await;
    }
    let hung = tabs.leader().await;
    let other = all.iter().find(|tab| **tab != hung).expect("another tab");
    tabs.ask(&json!({"hang": hung, "ms": 15_000}));
    tabs.state(other, "open", |state| state["leader"] == true)
        .await;
    let published = publish(&hub, "demo", numbers("meanwhile", 20)).await;
    tabs.see(std::slice::from_ref(other), &published).await;
    // Once it can, it sees them too, and does not lead any more.
    tabs.see(std::slice::from_ref(&hung), &published).await;
    assert_eq!(tabs.leader().await, *other);
    until_streams(&hub, "demo", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tab_sees_its_own_topics() {
    let hub = HubProcess::start("");
    let mut tabs = Tabs::of(&hub.origin()).await;
    tabs.open("a", &["room/a"], json!({})).await;
    publish(&hub, "room/b", numbers("before", 20)).await;
    let a1 = publish(&hub, "room/a", numbers("a", 3)).await;
    tabs.see(&["a".to_owned()], &a1).await;
    // Of what was there before, nothing comes.
    tabs.open("b", &["room/b"], json!({})).await;
    until_streams(&hub, "room/a", 1).await;
    until_streams(&hub, "room/b", 1).await;
    tabs.ask(&json!({"open": "all", "topics": ["room/*", "deep/**"], "options": {"tail": 2}}));
    tabs.see(&["all".to_owned()], &a1[1..]).await;

    let b = publish(&hub, "room/b", numbers("b", 3)).await;
    let a2 = publish(&hub, "room/a", numbers("more a", 3)).await;
    let deep = publish(&hub, "deep/1/2", numbers("deep", 1)).await;
    tabs.see(&["b".to_owned()], &b).await;
    tabs.see(&["a".to_owned()], &a2).await;
    tabs.see(&["all".to_owned()], &[b, a2, deep].concat()).await;
    assert_eq!(streams(&hub, "room/a").await, 1);

    // What nobody wants any more is let go of.
    tabs.close("b").await;
    tabs.close("all").await;
    until_streams(&hub, "room/b", 0).await;
    until_streams(&hub, "room/a", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_between_tabs_is_noticed() {
    let hub = HubProcess::start("");
    let mut tabs = Tabs::of(&hub.origin()).await;
    let all = names(4);
    for tab in &all {
        tabs.open(tab, &["demo"], json!({})).await;
        tabs.asked(json!({"lose": tab})).await;
    }
    let mut left = all;
    for round in ["first", "second", "third"] {
        let published = publish(&hub, "demo", numbers(round, 300)).await;
        tabs.see(&left, &published).await;
        let leader = tabs.leader().await;
        tabs.close(&leader).await;
        left.retain(|tab| *tab != leader);
    }
    assert_eq!(left.len(), 1);
}
