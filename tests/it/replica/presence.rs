//! Who is there, and how many streams want a topic.

use super::*;
use tidings::topic::Topic;
use tokio::time::Instant;

/// On all nodes: the streams that want a topic.
fn wanted(nodes: &[Node], topic: &str) -> Vec<u64> {
    let topic = Topic::parse(topic).unwrap();
    let total = |node: &Node| {
        node.log
            .presence(&topic)
            .nodes
            .iter()
            .map(|(_, count)| count)
            .sum()
    };
    nodes.iter().map(total).collect()
}

async fn counted(nodes: &[Node], topic: &str, count: u64) {
    within(Duration::from_secs(5), "all count the same", || {
        wanted(nodes, topic).iter().all(|wanted| *wanted == count)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn all_nodes_count_the_streams_of_all() {
    let journal = MemoryJournal::new();
    let mut nodes = nodes(&journal, 3).await;
    let mut hubs: Vec<_> = nodes.iter().map(Node::hub).collect();
    for (node, hub) in nodes.iter().zip(&hubs) {
        node.log.members().count_streams_of(hub);
    }
    let live =
        |hub: &Arc<Hub>, text: &str| Subscription::live_now(hub, &filter(&[text]), LagPolicy::Gap);
    let mut streams = Vec::new();
    for (n, hub) in hubs.iter().enumerate() {
        for _ in 0..=n {
            streams.push(live(hub, "a"));
        }
        streams.push(live(hub, "*"));
        streams.push(live(hub, "b/**"));
    }
    counted(&nodes, "a", 6 + 3).await;
    counted(&nodes, "b/c", 3).await;
    counted(&nodes, "c/d", 0).await;
    // A newcomer learns of all.
    nodes.push(Node::new(&journal).await);
    hubs.push(nodes[3].hub());
    nodes[3].log.members().count_streams_of(&hubs[3]);
    counted(&nodes, "a", 9).await;
    streams.push(live(&hubs[3], "a"));
    counted(&nodes, "a", 10).await;
    // Streams end.
    streams.clear();
    counted(&nodes, "a", 0).await;
    streams.push(live(&hubs[0], "a"));
    streams.push(live(&hubs[3], "a"));
    counted(&nodes, "a", 2).await;
    // A node dies without a word.
    let begun = Instant::now();
    let dead = nodes.pop().unwrap();
    dead.journal.cut(true);
    counted(&nodes, "a", 1).await;
    assert!(
        begun.elapsed() > Duration::from_secs(2),
        "silence is given some time"
    );
    assert!(nodes.iter().all(|node| node.log.nodes().len() == 3));
    // And one that says so is gone at once.
    let begun = Instant::now();
    nodes.remove(0).log.close().await;
    counted(&nodes, "a", 0).await;
    assert!(begun.elapsed() < Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn while_the_journal_is_down_nobody_is_thought_dead() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 3).await;
    let hubs: Vec<_> = nodes.iter().map(Node::hub).collect();
    let mut streams = Vec::new();
    for (node, hub) in nodes.iter().zip(&hubs) {
        node.log.members().count_streams_of(hub);
        streams.push(Subscription::live_now(hub, &filter(&["a"]), LagPolicy::Gap));
    }
    counted(&nodes, "a", 3).await;
    journal.set_up(false);
    within(SOON, "it is seen", || {
        nodes.iter().all(|node| !node.log.standing().linked)
    })
    .await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(wanted(&nodes, "a"), [3, 3, 3]);
        assert!(nodes.iter().all(|node| node.log.nodes().len() == 3));
    }
    journal.set_up(true);
    // Nor before they could be heard again.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        assert_eq!(wanted(&nodes, "a"), [3, 3, 3]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
