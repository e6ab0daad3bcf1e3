//! What the hub serves beside events.

use crate::support::server::TestServer;
use std::process::Command;

#[tokio::test]
async fn the_page_and_its_files_may_load_nothing_from_elsewhere() {
    let hub = TestServer::start().await;
    let page = hub.get("/", &[]).await;
    assert_eq!(page.status, 200);
    let links = page
        .body
        .split(['"', '\''])
        .filter(|text| text.starts_with("assets/"));
    let mut files: Vec<&str> = links.collect();
    files.sort_unstable();
    files.dedup();
    assert!(files.len() >= 5, "{files:?}");
    for file in ["", "problems/", "problems/log-full"].iter().chain(&files) {
        let answer = hub.get(&format!("/{file}"), &[]).await;
        assert_eq!(answer.status, 200, "{file}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
            "{policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert!(
            !answer.body.contains("<script>") && !answer.body.contains(" style="),
            "{file}"
        );
    }
    let list = hub.get("/problems", &[]).await;
    assert_eq!(
        (list.status, list.header("location")),
        (308, Some("/problems/"))
    );
    let list = hub.get("/problems/", &[]).await.body;
    assert!(list.contains("href=\"topic-invalid\"") && list.contains("href=\"draining\""));
}

#[tokio::test]
async fn a_browser_that_has_a_file_does_not_fetch_it_again() {
    let hub = TestServer::start().await;
    for path in ["/", "/assets/style.css", "/tidings.js"] {
        let plain = hub.get(path, &[]).await;
        assert_eq!(plain.header("cache-control"), Some("no-cache"));
        assert_eq!(plain.header("content-encoding"), None);
        let tag = plain.header("etag").unwrap();
        let other = format!("W/\"0\", {tag}");
        for known in [tag, "*", &other] {
            let again = hub.get(path, &[("If-None-Match", known)]).await;
            assert_eq!((again.status, again.body.as_str()), (304, ""), "{known}");
            assert_eq!(again.header("etag"), Some(tag));
        }
        let again = hub.get(path, &[("If-None-Match", "W/\"0\"")]).await;
        assert_eq!((again.status, again.body), (200, plain.body));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_come_compressed_to_whoever_takes_that() {
    let hub = TestServer::start().await;
    let url = hub.url("/tidings.js");
    let plain = hub.get("/tidings.js", &[]).await;
    assert!(plain.head.to_ascii_lowercase().contains("accept-encoding"));
    for (takes, compressed) in [
        ("gzip, deflate, br", true),
        ("br;q=1.0, GZIP;q=0.5", true),
        ("gzip;q=0, identity", false),
        ("br", false),
    ] {
        let bytes = curl(&["-H", &format!("Accept-Encoding: {takes}"), &url]);
        assert_eq!(bytes.starts_with(&[0x1f, 0x8b]), compressed, "{takes}");
        let expected = match compressed {
            true => bytes.len() < plain.body.len() / 2,
            false => bytes == plain.body.as_bytes(),
        };
        assert!(expected, "{takes}: {} bytes", bytes.len());
    }
    assert_eq!(curl(&["--compressed", &url]), plain.body.as_bytes());
}

fn curl(args: &[&str]) -> Vec<u8> {
    let mut curl = Command::new("curl");
    let output = curl.args(["-sS", "--noproxy", "*", "-m", "30"]).args(args);
    output.output().unwrap().stdout
}

#[tokio::test]
async fn a_hub_that_is_alone_has_no_nodes() {
    let hub = TestServer::start().await;
    let answer = hub.get("/cluster", &[]).await;
    let alone = serde_json::json!({ "journal": null, "nodes": [] });
    assert_eq!((answer.status, answer.json()), (200, alone));
}

#[tokio::test]
async fn pages_of_welcome_origins_may_import_the_client() {
    let hub = TestServer::start().await;
    for (origin, allowed) in [
        ("http://localhost:3000", Some("http://localhost:3000")),
        ("https://evil.example", None),
    ] {
        let answer = hub.get("/tidings.js", &[("Origin", origin)]).await;
        assert_eq!(answer.status, 200);
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("text/javascript; charset=utf-8"));
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
        assert!(answer.body.contains("export class Tidings"));
    }
}
