//! What the hub serves beside events.

use crate::support::server::TestServer;

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
    let list = hub.get("/problems/", &[]).await.body;
    assert!(list.contains("href=\"topic-invalid\"") && list.contains("href=\"draining\""));
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
