//! The programs in `examples/` that do not end by themselves, from end to end.

mod chat;
mod dashboard;
mod feed;

use crate::support::{broker::Home, ports};
use std::{
    env,
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};
use tokio::time::{Instant, interval};

/// For a program to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs, or did and may again, in a home with others.
struct Program {
    command: Command,
    port: u16,
    process: Option<Child>,
}

impl Program {
    /// An example that is a hub of its own, with its log below `home`, and more variables.
    fn example(name: &str, home: &Home, variables: &[(&str, &str)]) -> Self {
        let port = ports::free();
        let mut command = Command::new(built(name));
        command
            .env("TIDINGS_LISTEN", format!("127.0.0.1:{port}"))
            .env("TIDINGS_DATA_DIR", home.join(&format!("data-{port}")))
            .envs(variables.iter().copied());
        Self::new(command, port)
    }

    fn new(command: Command, port: u16) -> Self {
        Self {
            command,
            port,
            process: None,
        }
    }

    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it, and waits until it is ready.
    async fn start(&mut self, home: &Home) {
        let process = self.process.insert(home.run(&self.command));
        let ready = format!("http://127.0.0.1:{}/readyz", self.port);
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        let http = http.build().unwrap();
        let begun = Instant::now();
        let mut tick = interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            let answer = http.get(&ready).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            let exited = process.try_wait().expect("its exit status");
            assert!(
                exited.is_none() && begun.elapsed() < PATIENCE,
                "it does not get ready: {exited:?}\n{}",
                home.log(),
            );
        }
    }

    /// `kill -9`.
    fn kill(&mut self, home: &Home) {
        home.kill(self.process.take().expect("a program that runs"));
    }
}

/// Where cargo puts an example's binary: beside the folder of this test's own.
fn built(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let folder = test.ancestors().nth(2).expect("the folder of this build");
    let path = folder.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: `cargo test` builds it, or `cargo build --examples`",
        path.display()
    );
    path
}
