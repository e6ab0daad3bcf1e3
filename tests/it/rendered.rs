//! Pages of events that the hub renders.

use crate::support::{client::Client, server::TestServer};
use std::time::Duration;

const BROWSER: &str =
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

async fn page(hub: &TestServer, path: &str) -> String {
    let answer = hub.get(path, &[("Accept", BROWSER)]).await;
    assert_eq!(answer.status, 200, "{path}");
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             frame-ancestors 'none'; base-uri 'none'",
        ),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    answer.body
}

#[tokio::test]
async fn it_has_the_newest_events_escaped_and_the_cursor() {
    let hub = TestServer::start().await;
    let markup = "<script>alert(1)</script> & \"quotes\"";
    hub.publish("a/b", markup).await;
    let json = r#"{"a":[1.0,12345678901234567890],"b":"</pre>"}"#;
    let last = hub.publish("a/b", json).await;
    let page1 = page(&hub, "/topics/a/b").await;
    assert!(!page1.contains("<script>") && !page1.contains("</pre>\""));
    assert!(page1.contains("&#60;script&#62;alert(1)&#60;/script&#62; &#38; &#34;quotes&#34;"));
    assert!(page1.contains("<span class=\"number\">12345678901234567890</span>"));
    assert!(page1.contains(&format!("data-cursor=\"{last}\"")));
    assert!(page1.contains("href=\"../../assets/style.css\""));
    let (newer, older) = (page1.find("number").unwrap(), page1.find("alert").unwrap());
    assert!(newer < older, "the newest first");
    let script = page1
        .split("src=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert_eq!(script, "../../assets/topic.js");
    assert_eq!(hub.get("/assets/topic.js", &[]).await.status, 200);
}

#[tokio::test]
async fn what_is_in_the_url_is_escaped_and_kept() {
    let hub = TestServer::start().await;
    let page = page(
        &hub,
        "/events?topic=%22%3E%3Cb%3E&topic=x/**&limit=5&_=%3C'",
    )
    .await;
    assert!(
        page.contains("<title>&#34;&#62;&#60;b&#62;, x/** – Tidings</title>"),
        "{page}"
    );
    assert!(!page.contains("<b>"));
    let stream = "data-stream=\"?topic=%22%3E%3Cb%3E&#38;topic=x/**&#38;_=%3C&#39;&#38;format=sse&#38;frame=message&#38;open=1\"";
    assert!(page.contains(stream), "{page}");
    assert!(page.contains("href=\"assets/style.css\""));
}

#[tokio::test]
async fn a_page_of_the_newest_leads_to_the_oldest() {
    let hub = TestServer::start().await;
    for n in 0..5 {
        hub.publish("a", n.to_string()).await;
    }
    let all = page(&hub, "/topics/a?limit=6&_=1").await;
    assert!(all.contains("5 events, the newest first") && !all.contains("since=earliest"));
    let newest = page(&hub, "/topics/a?limit=3&_=1").await;
    assert!(newest.contains("the newest 3"));
    let first = newest
        .split("href=\"")
        .find(|link| link.contains("earliest"));
    let first = first.unwrap().split('"').next().unwrap();
    let first = page(&hub, &format!("/topics/a{}", first.replace("&#38;", "&"))).await;
    assert_eq!(first.matches("<li class=\"row\">").count(), 3);
    assert!(first.contains("\n0<") && first.contains("rel=\"next\""));
}

#[tokio::test]
async fn gaps_and_further_pages_are_shown() {
    let hub = TestServer::start().await;
    for n in 0..5 {
        hub.publish("a", n.to_string()).await;
    }
    let page1 = page(&hub, "/topics/a?since=earliest&limit=2").await;
    let next = page1.split("rel=\"next\" href=\"").nth(1).unwrap();
    let next = next.split('"').next().unwrap().replace("&#38;", "&");
    let page2 = page(&hub, &format!("/topics/a{next}")).await;
    assert!(
        page2.contains(">3</") || page2.contains("3</pre>"),
        "{page2}"
    );
    assert!(!page2.contains("0</pre>"));
    let gap = page(&hub, "/topics/a?last_event_id=%3Cnobody%3E").await;
    assert!(
        gap.contains("<strong>Gap</strong>") && gap.contains("&#60;nobody&#62;"),
        "{gap}"
    );
}

/// A page is 4 MiB of markup, or one event, whatever the events become.
const PAGE_BYTES_MAX: usize = (4 << 20) + (8 << 10);

#[tokio::test]
async fn what_would_become_long_is_shown_as_it_is() {
    let hub = TestServer::start().await;
    let nested = format!(
        "{}{}1{}",
        "[".repeat(120),
        "1,".repeat(450_000),
        "]".repeat(120)
    );
    for _ in 0..3 {
        hub.publish("a", nested.clone()).await;
    }
    let page = page(&hub, "/topics/a").await;
    assert!(page.len() <= PAGE_BYTES_MAX, "{} bytes", page.len());
    assert_eq!(page.matches(&nested).count(), 3);
}

#[tokio::test]
async fn a_page_ends_before_it_is_too_long_and_the_next_one_goes_on() {
    let hub = TestServer::start().await;
    // As markup a quote is five bytes, in an envelope two. The last one alone is more than a page.
    let sizes = [400_000; 8]
        .into_iter()
        .chain([20_000; 40])
        .chain([900_000, 1]);
    let mut ids = Vec::new();
    for (n, size) in sizes.enumerate() {
        ids.push(hub.publish("a", format!("{n} {}", "\"".repeat(size))).await);
    }
    let (mut shown, mut pages) = (Vec::new(), 0);
    let mut path = "/topics/a?since=earliest&limit=1000".to_owned();
    loop {
        let page = page(&hub, &path).await;
        let events: Vec<_> = page.split("<pre class=\"data\">\n").skip(1).collect();
        assert!(
            page.len() <= PAGE_BYTES_MAX || events.len() == 1,
            "{} bytes",
            page.len()
        );
        let numbers = events.iter().map(|data| data.split(' ').next().unwrap());
        shown.extend(numbers.rev().map(|number| number.parse::<usize>().unwrap()));
        let cursor = &ids[*shown.last().unwrap()];
        assert!(page.contains(&format!("data-cursor=\"{cursor}\"")));
        pages += 1;
        let Some((_, next)) = page.split_once("rel=\"next\" href=\"") else {
            break;
        };
        let next = next.split('"').next().unwrap().replace("&#38;", "&");
        path = format!("/topics/a{next}");
    }
    assert_eq!(shown, (0..ids.len()).collect::<Vec<_>>());
    assert_eq!(pages, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_sees_no_hole_between_the_page_and_its_stream() {
    let hub = TestServer::start().await;
    for n in 0..40 {
        hub.publish("numbers", n.to_string()).await;
    }
    let origin = hub.url("");
    let publish = async {
        for n in 40.. {
            hub.publish("numbers", n.to_string()).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = publish => {}
        () = Client::walk("rendered.mjs", &[&origin, "6"]).ended_well() => {}
    }
}
