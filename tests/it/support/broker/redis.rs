//! Redis.

use super::{Broker, RedisFsync, tls};
use redis::{
    AsyncConnectionConfig, Client, TlsCertificates,
    aio::{ConnectionLike, MultiplexedConnection},
};
use std::{
    fs::{self, OpenOptions},
    path::Path,
    process::Command,
    time::Duration,
};

/// A client of the broker.
pub(crate) async fn connect(broker: &Broker) -> anyhow::Result<MultiplexedConnection> {
    let client = match broker.ca_file() {
        None => Client::open(broker.url())?,
        Some(ca_file) => {
            tls::install_provider();
            let certificates = TlsCertificates {
                client_tls: None,
                root_cert: Some(fs::read(ca_file)?),
            };
            Client::build_with_tls(broker.url(), certificates)?
        }
    };
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    Ok(connection.await?)
}

pub(super) fn configure(broker: &Broker) {
    let Broker { port, settings, .. } = broker;
    let home = broker.home.path().display();
    let fsync = match settings.redis_fsync {
        RedisFsync::Always => "appendonly yes\nappendfsync always",
        RedisFsync::EverySecond => "appendonly yes\nappendfsync everysec",
        RedisFsync::Nothing => "appendonly no",
    };
    let password = settings.password.map(|p| format!("requirepass {p}"));
    let ports = if settings.tls {
        format!(
            "port 0\ntls-port {port}\ntls-auth-clients no\ntls-ca-cert-file {home}/{}\n\
             tls-cert-file {home}/{}\ntls-key-file {home}/{}",
            tls::CA,
            tls::CERTIFICATE,
            tls::KEY,
        )
    } else {
        format!("port {port}")
    };
    let text = format!(
        "bind 127.0.0.1\n{ports}\ndir {home}/data\nsave \"\"\n{fsync}\n{}\n{}\n",
        password.unwrap_or_default(),
        settings.lines,
    );
    broker.home.write("redis.conf", &text);
}

pub(super) fn command(broker: &Broker) -> Command {
    let mut command = Command::new("redis-server");
    command.arg(broker.home.join("redis.conf"));
    command
}

/// It has read its file: until then it answers LOADING.
pub(super) async fn ready(broker: &Broker) -> anyhow::Result<()> {
    let mut connection = connect(broker).await?;
    let pong: String = redis::cmd("PING").query_async(&mut connection).await?;
    anyhow::ensure!(pong == "PONG", "{pong}");
    Ok(())
}

pub(super) async fn wipe(broker: &Broker) {
    let mut connection = connect(broker).await.expect("a connection");
    let wiped = connection.req_packed_command(&redis::cmd("FLUSHALL")).await;
    wiped.expect("FLUSHALL");
}

/// Of the newest file that grows.
pub(super) fn cut_aof(data: &Path, bytes: u64) {
    let files = fs::read_dir(data.join("appendonlydir")).expect("append-only files");
    let newest = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
        // appendonly.aof.{n}.incr.aof
        .max_by_key(|path| {
            let name = path.to_string_lossy();
            let number = name.rsplit('.').nth(2).map(str::parse::<u64>);
            number.expect("a number").expect("a number")
        })
        .expect("a file that grows");
    let file = OpenOptions::new().write(true).open(newest).expect("it");
    let length = file.metadata().expect("its length").len();
    let left = length.checked_sub(bytes).expect("so many bytes");
    file.set_len(left).expect("a cut file");
}
