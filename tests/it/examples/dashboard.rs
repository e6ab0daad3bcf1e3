//! `examples/dashboard`: its pages are right whenever they are loaded, and stay so.

use super::Program;
use crate::support::{broker::Home, client::Client};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_what_the_server_has_with_scripts_and_without() {
    let home = Home::new("dashboard");
    let mut dashboard = Program::example("dashboard", &home, &[]);
    dashboard.start(&home).await;
    let origin = dashboard.origin();
    let mut pages = Client::walk("dashboard.mjs", &[&origin]);
    // In the middle of it, the server is killed, and comes back with its log.
    assert_eq!(pages.message().await.data, "kill");
    dashboard.kill(&home);
    dashboard.start(&home).await;
    pages.command(&"started".into());
    pages.ended_well().await;
    dashboard.kill(&home);
}
