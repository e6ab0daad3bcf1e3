//! RabbitMQ, started without Debian's wrapper, which wants to be root and to become another user.

use super::{Broker, tls};
use crate::support::{ports, stream::PATIENCE};
use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    tcp::OwnedTLSConfig,
    types::{AMQPValue, FieldTable},
};
use std::{fs, process::Command};
use tokio::time::timeout;

/// A stream that is there from the first start on, to see whether streams can be used.
const PROBE: &str = "tests.probe";

/// A client of the broker.
pub(crate) async fn connect(broker: &Broker) -> anyhow::Result<Connection> {
    let ca = broker.ca_file().map(fs::read_to_string).transpose()?;
    tls::install_provider();
    let config = OwnedTLSConfig {
        identity: None,
        cert_chain: ca,
    };
    let properties = ConnectionProperties::default();
    let runtime = lapin::runtime::default_runtime()?;
    let url = broker.url();
    let connection = Connection::connect_with_config(&url, properties, config, runtime);
    Ok(timeout(PATIENCE, connection).await??)
}

/// What makes a queue a stream.
pub(crate) fn stream() -> (QueueDeclareOptions, FieldTable) {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("stream".into()),
    );
    (QueueDeclareOptions::durable(), arguments)
}

/// Gives its register of names, which is to run before it: it would start one that stays behind.
pub(super) fn configure(broker: &Broker) -> Command {
    let Broker { port, settings, .. } = broker;
    let home = broker.home.path().display();
    let listeners = if settings.tls {
        format!(
            "listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {home}/{}\nssl_options.certfile = {home}/{}\n\
             ssl_options.keyfile = {home}/{}\nssl_options.verify = verify_none",
            tls::CA,
            tls::CERTIFICATE,
            tls::KEY,
        )
    } else {
        format!("listeners.tcp.1 = 127.0.0.1:{port}")
    };
    let password = settings.password.unwrap_or("guest");
    let text = format!(
        "{listeners}\ndefault_pass = {password}\n{}\n",
        settings.lines
    );
    broker.home.write("rabbitmq.conf", &text);
    broker.home.write("plugins", "[].\n");
    let (register, between_nodes) = (ports::free(), ports::free());
    // Two schedulers would only get into each other's way, and waiting busily into everybody's.
    let environment = [
        ("HOME", format!("{home}")),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_EPMD_PORT", register.to_string()),
        ("RABBITMQ_NODENAME", format!("tests{port}@localhost")),
        ("RABBITMQ_DIST_PORT", between_nodes.to_string()),
        ("RABBITMQ_MNESIA_BASE", format!("{home}/data")),
        ("RABBITMQ_LOG_BASE", format!("{home}/log")),
        ("RABBITMQ_CONFIG_FILE", format!("{home}/rabbitmq")),
        ("RABBITMQ_CONF_ENV_FILE", format!("{home}/none")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", format!("{home}/plugins")),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none \
             -kernel inet_dist_use_interface {127,0,0,1}"
                .to_owned(),
        ),
        // Makes the script become the server instead of waiting for it.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
    ];
    let text: String = environment
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect();
    broker.home.write("environment", &text);
    in_environment("exec epmd")
}

pub(super) fn command(_: &Broker) -> Command {
    in_environment("exec /usr/lib/rabbitmq/bin/rabbitmq-server")
}

/// A stream can be written to: that takes half a second more than the port. And the first one ever would be found again:
/// for as long again the broker knows of those who know of streams in its memory only, and never finds them after a kill.
pub(super) async fn ready(broker: &Broker) -> anyhow::Result<()> {
    let connection = connect(broker).await?;
    let channel = connection.create_channel().await?;
    let (options, arguments) = stream();
    channel
        .queue_declare(PROBE.into(), options, arguments)
        .await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let mandatory = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let publish = channel.basic_publish(
        "".into(),
        PROBE.into(),
        mandatory,
        b"",
        BasicProperties::default(),
    );
    let confirmation = publish.await?.await?;
    anyhow::ensure!(confirmation == Confirmation::Ack(None), "{confirmation:?}");
    connection.close(200, "".into()).await?;
    let node = format!("tests{}@localhost", broker.port);
    let names = format!("data/{node}/coordination/{node}/names.dets");
    let names = fs::read(broker.home.join(&names))?;
    let coordinator = b"rabbit_stream_coordinator";
    let written = memchr::memmem::find(&names, coordinator).is_some();
    anyhow::ensure!(written, "the first stream is not safe yet");
    Ok(())
}

pub(super) async fn wipe(broker: &Broker, name: &str) {
    let connection = connect(broker).await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let queue = format!("tidings.{name}.journal");
    // A queue that is not there would be deleted without an error.
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    let there = channel
        .queue_declare(queue.as_str().into(), passive, FieldTable::default())
        .await;
    there.expect("a queue to wipe");
    let deleted = channel
        .queue_delete(queue.into(), QueueDeleteOptions::default())
        .await;
    deleted.expect("a deleted queue");
    let _ = connection.close(200, "".into()).await;
}

/// A program that is run with the variables written above.
fn in_environment(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!(". ./environment && {script}")]);
    command
}
