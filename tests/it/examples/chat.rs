//! `examples/chat` on two nodes behind nginx, one of which is killed.

use super::Program;
use crate::support::{
    broker::{Broker, Home, Kind},
    client::Client,
    ports,
};
use std::{fs, process::Command};

/// nginx as `examples/cluster` has it, on these nodes.
fn nginx(home: &Home, nodes: &[Program; 2]) -> Program {
    let template = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/cluster/nginx.conf.template"
    );
    let mut hubs = fs::read_to_string(template).expect("the template");
    let port = ports::free();
    hubs = hubs.replace("${LISTEN}", &format!("127.0.0.1:{port}"));
    for (n, node) in nodes.iter().enumerate() {
        let address = format!("127.0.0.1:{}", node.port);
        hubs = hubs.replace(&format!("${{NODE{}}}", n + 1), &address);
    }
    let hubs: String = hubs
        .lines()
        .filter(|line| !line.contains("${NODE3}"))
        .map(|line| format!("{line}\n"))
        .collect();
    home.write("hubs.conf", &hubs);
    let parts = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = parts.map(|part| format!("{part}_temp_path temp-{part};"));
    let path = home.path().display();
    // What runs as root would become somebody who cannot look into its home.
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; {} include {path}/hubs.conf; }}\n",
        paths.join(" ")
    );
    home.write("nginx.conf", &config);
    let mut command = Command::new("/usr/sbin/nginx");
    command.args([
        "-p",
        &path.to_string(),
        "-c",
        "nginx.conf",
        "-e",
        "nginx.log",
    ]);
    Program::new(command, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_loses_nothing_and_its_browsers_go_on_elsewhere() {
    let broker = Broker::start(Kind::Redis).await;
    let home = Home::new("chat");
    let journal = broker.url();
    let journal = [("TIDINGS_CLUSTER__JOURNAL", journal.as_str())];
    let mut nodes = [(); 2].map(|()| Program::example("chat", &home, &journal));
    for node in &mut nodes {
        node.start(&home).await;
    }
    let mut proxy = nginx(&home, &nodes);
    proxy.start(&home).await;

    let origins = [&proxy, &nodes[0], &nodes[1]].map(Program::origin);
    let mut talk = Client::walk("chat.mjs", &origins.each_ref().map(String::as_str));
    assert_eq!(talk.message().await.data, "kill");
    nodes[0].kill(&home);
    talk.command(&"killed".into());
    assert_eq!(talk.message().await.data, "start");
    nodes[0].start(&home).await;
    talk.command(&"started".into());
    talk.ended_well().await;

    proxy.kill(&home);
    nodes.iter_mut().for_each(|node| node.kill(&home));
}
