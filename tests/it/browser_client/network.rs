//! What is between the tabs and the hub, and the hub itself, goes and comes back.

use super::{Tabs, names, numbers, publish, until_streams};
use crate::support::{
    broker::Home,
    chaos::{ChaosProxy, Mode},
    client::Message,
    hub::HubProcess,
    ports, process,
};
use serde_json::json;
use std::{
    net::TcpStream,
    process::{Child, Command},
    time::Duration,
};
use tokio::time::{Instant, sleep};

async fn opened(origin: &str, count: usize) -> (Tabs, Vec<String>) {
    let mut tabs = Tabs::of(origin).await;
    let all = names(count);
    for tab in &all {
        tabs.open(tab, &["demo"], json!({})).await;
    }
    (tabs, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_is_killed_and_comes_back() {
    let mut hub = HubProcess::start("");
    let (mut tabs, all) = opened(&hub.origin(), 4).await;
    for stop in [HubProcess::kill, HubProcess::terminate] {
        let before = publish(&hub, "demo", numbers("before", 20)).await;
        stop(&mut hub);
        for tab in &all {
            tabs.state(tab, "waiting", |_| true).await;
        }
        hub.start_elsewhere();
        let meanwhile = publish(&hub, "demo", numbers("meanwhile", 20)).await;
        hub.terminate();
        hub.start_again();
        let after = publish(&hub, "demo", numbers("after", 20)).await;
        tabs.see(&all, &[before, meanwhile, after].concat()).await;
        until_streams(&hub, "demo", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_is_cut_or_stalls_and_comes_back() {
    let hub = HubProcess::start("");
    let proxy = ChaosProxy::start(hub.address()).await;
    let (mut tabs, all) = opened(&format!("http://{}", proxy.address), 4).await;
    for mode in [Mode::Cut, Mode::Stall] {
        let before = publish(&hub, "demo", numbers("before", 20)).await;
        tabs.see(&all, &before).await;
        proxy.set(mode).await;
        let meanwhile = publish(&hub, "demo", numbers("meanwhile", 20)).await;
        for tab in &all {
            tabs.state(tab, "waiting", |_| true).await;
        }
        proxy.set(Mode::Pass).await;
        let after = publish(&hub, "demo", numbers("after", 20)).await;
        tabs.see(&all, &[meanwhile, after].concat()).await;
    }
}

/// nginx that holds streams back, whatever the hub says.
struct Nginx {
    process: Child,
    port: u16,
    _home: Home,
}

impl Nginx {
    async fn start(hub: &HubProcess) -> Self {
        let home = Home::new("nginx");
        let port = ports::free();
        let (dir, hub) = (home.path().display(), hub.address());
        let config = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log stderr;
             events {{}}
             http {{
                 access_log off;
                 client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
                 scgi_temp_path {dir}/scgi; uwsgi_temp_path {dir}/uwsgi;
                 server {{
                     listen 127.0.0.1:{port};
                     location / {{
                         proxy_pass http://{hub};
                         # (In answers over HTTP/1.1 it passes each chunk on, whatever it is told.)
                         proxy_http_version 1.0;
                         proxy_set_header Host $http_host;
                         proxy_buffering on;
                         proxy_ignore_headers X-Accel-Buffering;
                     }}
                 }}
             }}"
        );
        home.write("nginx.conf", &config);
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.args(["-e", "stderr", "-p"]).arg(home.path());
        let process = home.run(nginx.args(["-c", "nginx.conf"]));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = home.log();
            assert!(Instant::now() < deadline, "nginx does not listen: {said}");
            sleep(Duration::from_millis(20)).await;
        }
        Self {
            process,
            port,
            _home: home,
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Not SIGTERM: with a single process it may sleep over it.
        process::kill(&mut self.process);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_streams_are_held_back_it_polls() {
    let hub = HubProcess::start("");
    let nginx = Nginx::start(&hub).await;
    let (mut tabs, all) = opened(&format!("http://127.0.0.1:{}", nginx.port), 3).await;
    for tab in &all {
        tabs.state(tab, "open", |state| state["via"] == "poll")
            .await;
    }
    let first = publish(&hub, "demo", numbers("first", 1)).await;
    tabs.see(&all, &first).await;
    let more = publish(&hub, "demo", numbers("more", 300)).await;
    tabs.see(&all, &more).await;

    // A tab with other topics, and then the leader gone.
    tabs.open("other", &["other"], json!({})).await;
    let other = publish(&hub, "other", numbers("other", 1)).await;
    tabs.see(&["other".to_owned()], &other).await;
    let leader = tabs.leader().await;
    tabs.close(&leader).await;
    let left: Vec<_> = all.into_iter().filter(|tab| *tab != leader).collect();
    let last: Vec<Message> = publish(&hub, "demo", numbers("last", 20)).await;
    tabs.see(&left, &last).await;
}
