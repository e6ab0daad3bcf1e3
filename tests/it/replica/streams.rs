//! What open streams see of an epoch that begins.

use super::*;

/// A reader that had events that are lost is told once; then it gets all that follows the fork, and nothing old. One that
/// had none of them is told nothing.
#[tokio::test(start_paused = true)]
async fn streams_are_told_once_and_go_on_after_the_fork() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 3).await;
    let hubs: Vec<_> = nodes.iter().map(Node::hub).collect();
    let good = publish(&nodes, 0..10).await;
    let before = settled(&journal, &nodes, 0).await;
    let saved = journal.save();
    let (mut late, mut early, mut behind) = (Vec::new(), Vec::new(), Vec::new());
    for hub in &hubs {
        let mut reader = reader(hub, from_the_start()).await;
        assert_eq!(taken(&mut reader, 10).await, numbers(0..10));
        early.push(reader);
        late.push(Subscription::live_now(hub, &filter(ALL), LagPolicy::Gap));
    }
    publish(&nodes, 10..15).await;
    settled(&journal, &nodes, 0).await;
    for (hub, reader) in hubs.iter().zip(&mut late) {
        assert_eq!(taken(reader, 5).await, numbers(10..15));
        behind.push(self::reader(hub, from_the_start()).await);
    }
    journal.put_back(&saved);
    settled(&journal, &nodes, before).await;
    publish(&nodes, 20..30).await;
    settled(&journal, &nodes, before).await;
    let told = [vec!["epoch".to_owned()], numbers(20..30)].concat();
    for n in 0..nodes.len() {
        assert_eq!(taken(&mut late[n], 11).await, told);
        assert_eq!(taken(&mut early[n], 10).await, numbers(20..30));
        let all = [numbers(0..10), numbers(20..30)].concat();
        assert_eq!(taken(&mut behind[n], 20).await, all);
        // Its place is good on all the others.
        for hub in &hubs {
            let mut back = reader(hub, Begin::Log(Start::Cursor(good[4]))).await;
            let rest = [numbers(5..10), numbers(20..30)].concat();
            assert_eq!(taken(&mut back, 15).await, rest);
            let cursor = late[n].cursor();
            let mut back = reader(hub, Begin::Log(Start::Cursor(cursor))).await;
            assert!(
                timeout(Duration::from_millis(50), back.next())
                    .await
                    .is_err()
            );
        }
    }
}

/// While a reader takes nothing, the log is lost again and again: what it is told once is enough.
#[tokio::test(start_paused = true)]
async fn a_reader_that_slept_through_several_losses_goes_on_with_what_is_there() {
    let journal = MemoryJournal::new();
    let nodes = nodes(&journal, 2).await;
    let hubs: Vec<_> = nodes.iter().map(Node::hub).collect();
    let mut sleepers = Vec::new();
    for hub in &hubs {
        sleepers.push(Subscription::live_now(hub, &filter(ALL), LagPolicy::Gap));
    }
    publish(&nodes, 0..5).await;
    let mut epoch = settled(&journal, &nodes, 0).await;
    for sleeper in &mut sleepers {
        assert_eq!(taken(sleeper, 5).await, numbers(0..5));
    }
    for round in 1..4 {
        journal.wipe();
        epoch = settled(&journal, &nodes, epoch).await;
        publish(&nodes, round * 10..round * 10 + 5).await;
        settled(&journal, &nodes, 0).await;
    }
    for sleeper in &mut sleepers {
        let told = [vec!["epoch".to_owned()], numbers(30..35)].concat();
        assert_eq!(taken(sleeper, 6).await, told);
    }
}

/// Events that go to readers while the journal is rolled back and they are published again: each reader sees numbers that
/// rise, but for what it is told of.
#[tokio::test(start_paused = true)]
async fn readers_under_way_see_no_old_event_after_a_new_one() {
    for seed in 1..20 {
        let journal = MemoryJournal::new();
        let nodes = nodes(&journal, 2).await;
        let hubs: Vec<_> = nodes.iter().map(Node::hub).collect();
        publish(&nodes, 0..seed + 1).await;
        let before = settled(&journal, &nodes, 0).await;
        let saved = journal.save();
        let mut reading = Vec::new();
        for hub in &hubs {
            let mut reader = reader(hub, from_the_start()).await;
            reading.push(async move {
                let mut all = Vec::new();
                while all.last().is_none_or(|last| last != "last") {
                    all.extend(taken(&mut reader, 1).await);
                }
                all
            });
        }
        let publishing = async {
            publish(&nodes, 100..100 + 3 * seed).await;
            journal.put_back(&saved);
            settled(&journal, &nodes, before).await;
            publish(&nodes, 1_000..1_010).await;
            put(&*nodes[0].log, "a", "last").await;
        };
        let (read, ()) = tokio::join!(
            crate::log_support::join_all(reading.into_iter()),
            publishing
        );
        let new = [numbers(1_000..1_010), vec!["last".to_owned()]].concat();
        for all in read {
            let (old, rest) = all.split_at(
                all.iter()
                    .position(|one| one == "epoch" || one == "1000")
                    .unwrap(),
            );
            let sent = [numbers(0..seed + 1), numbers(100..100 + 3 * seed)].concat();
            assert!(sent.starts_with(old), "{old:?}");
            let rest = rest.strip_prefix(&["epoch".to_owned()]).unwrap_or(rest);
            assert_eq!(rest, new);
            assert!(old.len() > seed);
        }
    }
}
