//! What the words of the command line mean. Each command is a file; this one has their arguments, their
//! help, and the one place where an error is printed.

mod bench;
mod client;
mod inspect;
mod port;
mod publish;
mod serve;
mod sse;
mod subscribe;

use clap::{Args, Parser, Subcommand};
use std::{fmt, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};
use tidings::config::{Flag, Loaded, Sources, environment, load, units::parse_duration};

/// A self-hosted push hub: anything that can POST publishes, anything that can GET listens.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  tidings                                   start a hub on http://127.0.0.1:8080
  tidings subscribe demo                    print what is published to the topic demo
  tidings publish demo hello                publish to it
  curl -d hello http://127.0.0.1:8080/topics/demo

Configuration: a TOML file, then environment variables (TIDINGS_LOG__DURABILITY=os), then
flags; `tidings config` lists every knob with its default. TIDINGS_TRACE=debug logs more.

Exit codes: 0 fine, 1 an error (told on standard error), 2 wrong usage, 130 stopped by a signal."
)]
struct Cli {
    #[command(flatten)]
    hub: HubArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(ServeArgs),
    Publish(PublishArgs),
    Subscribe(SubscribeArgs),
    Config(ConfigArgs),
    #[command(subcommand)]
    Log(LogCommand),
    Bench(bench::BenchArgs),
}

/// What all commands take that look at a hub's configuration.
#[derive(Args, Clone, Debug, Default)]
struct HubArgs {
    /// Configuration file [default: ./tidings.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the hub listens [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Folder of the durable log [default: ./tidings-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
}

/// Start the hub (also without any command)
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidings serve
  tidings serve --listen 127.0.0.1:9000 --data-dir /var/lib/tidings
  TIDINGS_LOG__BYTES_MAX=1GiB tidings serve --config /etc/tidings.toml

SIGTERM or Ctrl-C lets publishes under way finish, sends readers away to come back later,
and ends with exit code 0. A second one ends at once.")]
struct ServeArgs {
    #[command(flatten)]
    hub: HubArgs,
}

/// Publish one event, or each line of standard input
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidings publish demo hello
  tidings publish orders/42 '{\"paid\":true}' --event paid --idempotency-key pay-42
  date | tidings publish demo
  tail -f /var/log/syslog | tidings publish logs/syslog --lines

Prints the id of each event once the hub has stored it. With --lines it ends with exit
code 1 when the connection is lost: lines whose id it did not print may be stored or not.")]
struct PublishArgs {
    /// Topic, such as orders/42
    topic: String,
    /// The event's data; standard input if it is - or missing
    data: Option<String>,
    /// Name of the event, for addEventListener in browsers
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Your own id of the event, from which readers may start
    #[arg(long, value_name = "ID", conflicts_with = "lines")]
    own_id: Option<String>,
    /// How long readers are to wait before they reconnect, such as 5s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    retry: Option<Duration>,
    /// Publishing again with the same key does nothing
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    idempotency_key: Option<String>,
    /// Each line of standard input is one event, published as it comes
    #[arg(long)]
    lines: bool,
    #[command(flatten)]
    at: HubAddress,
}

/// Print events as they come; resumes by itself after a lost connection
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidings subscribe demo
  tidings subscribe 'github/*' alerts --since 10m
  tidings subscribe 'orders/**' --tail 5 --json | jq .data

Prints the data of each event, or with --json one line of JSON per event:
  {\"topic\",\"id\",\"own_id\",\"event\",\"time\",\"data\"}
Events that the hub had to remove before they were read are told on standard error; with
--json as a line {\"gap\":{...}} on standard output.")]
struct SubscribeArgs {
    /// Topics, or patterns in which * is one segment and a final ** is one or more
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// One line of JSON per event, with its topic, id, name and time
    #[arg(long)]
    json: bool,
    /// Start in the past: 10m, 2026-11-20T08:30:00Z, or earliest
    #[arg(long, value_name = "WHEN", conflicts_with_all = ["tail", "last_event_id"])]
    since: Option<String>,
    /// Start with the newest so many events
    #[arg(long, value_name = "N", conflicts_with = "last_event_id")]
    tail: Option<u64>,
    /// Start after the event with this id, or with this own id
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,
    #[command(flatten)]
    at: HubAddress,
}

/// Where a client finds the hub.
#[derive(Args, Debug)]
struct HubAddress {
    /// The hub [env: TIDINGS_URL] [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Print the effective configuration, and where each value came from
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidings config > tidings.toml        a file to start from, with every knob explained
  tidings config --config new.toml     check a file: exit code 1 if anything is wrong")]
struct ConfigArgs {
    #[command(flatten)]
    hub: HubArgs,
}

/// Look after the log
#[derive(Debug, Subcommand)]
enum LogCommand {
    NewEpoch(NewEpochArgs),
}

/// Begin a new epoch, after restoring a backup
///
/// A restored log has lost the events since the backup, and would give their ids to others. In
/// a new epoch every reader that comes back is told of a gap instead. Stop the hub first.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  tidings log new-epoch --data-dir /var/lib/tidings")]
struct NewEpochArgs {
    #[command(flatten)]
    hub: HubArgs,
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve::run(&cli.hub),
        Some(Command::Serve(args)) => serve::run(&args.hub.or(cli.hub)),
        Some(Command::Config(args)) => inspect::config(&args.hub.or(cli.hub)),
        Some(Command::Log(LogCommand::NewEpoch(args))) => inspect::new_epoch(&args.hub.or(cli.hub)),
        Some(Command::Publish(args)) => cli.hub.refuse().and_then(|()| publish::run(&args)),
        Some(Command::Bench(args)) => cli.hub.refuse().and_then(|()| bench::run(&args)),
        Some(Command::Subscribe(args)) => cli.hub.refuse().and_then(|()| subscribe::run(args)),
    };
    result.unwrap_or_else(|error| {
        tell(format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

impl HubArgs {
    /// Those given after the command's name, else those before it.
    fn or(self, before: Self) -> Self {
        Self {
            config: self.config.or(before.config),
            listen: self.listen.or(before.listen),
            data_dir: self.data_dir.or(before.data_dir),
        }
    }

    /// A client has no use for them.
    fn refuse(&self) -> anyhow::Result<()> {
        let none = self.config.is_none() && self.listen.is_none() && self.data_dir.is_none();
        anyhow::ensure!(
            none,
            "--config, --listen and --data-dir are for the hub; a client finds it by --url"
        );
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Loaded> {
        let flags = [
            ("--listen", "listen", &self.listen),
            ("--data-dir", "data_dir", &self.data_dir),
        ];
        let flags = flags.into_iter().filter_map(|(name, key, value)| {
            let value = value.clone()?;
            Some(Flag { name, key, value })
        });
        Ok(load(&Sources {
            file: self.config.clone(),
            flags: flags.collect(),
            ..Sources::of_process()
        })?)
    }
}

impl HubAddress {
    fn base(&self) -> anyhow::Result<client::Base> {
        let url = self
            .url
            .clone()
            .or_else(|| environment::get(environment::URL));
        client::Base::parse(url.as_deref().unwrap_or("http://127.0.0.1:8080"))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a duration such as 500ms or 5s".to_owned())
}

/// A line on standard error. If that is closed, there is nobody to tell.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "tidings: {line}");
}

/// Runs a client's future. Its runtime is not waited for: a read of standard input may never end.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_count_on_both_sides_of_the_command() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap();
        let before = parse("tidings --listen a --data-dir b serve --listen c");
        let Some(Command::Serve(args)) = before.command else {
            panic!("not serve");
        };
        let hub = args.hub.or(before.hub);
        assert_eq!(hub.listen.as_deref(), Some("c"));
        assert_eq!(hub.data_dir.as_deref(), Some("b"));
    }
}
