//! What was configured is what counts, one knows from where, and what is wrong is told with its place.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::Path, time::Duration};
use tempfile::TempDir;
use tidings::config::{
    Config, ConfigError, Durability, Engine, Flag, Loaded, Origin, RetentionRule, Sources,
    SubscribeConfig, load,
};
use tidings::topic::Pattern;

const ISSUE_EXAMPLE: &str = r#"
listen = "127.0.0.1:8080"
data_dir = "./tidings-data"

[log]
engine = "sqlite"            # or "memory"
durability = "sync"          # or "os"
bytes_max = "10GiB"          # the whole log, its write-ahead file included

[[log.retention]]            # the first that matches a topic counts; limits are per topic
topics = "github/**"
age_max = "7d"
events_max = 100_000
bytes_max = "1GiB"
"#;

fn file(dir: &TempDir, text: &str) -> Sources {
    let path = dir.path().join("tidings.toml");
    std::fs::write(&path, text).unwrap();
    Sources {
        file: Some(path),
        ..Sources::default()
    }
}

fn from_file(text: &str) -> Result<Loaded, ConfigError> {
    load(&file(&TempDir::new().unwrap(), text))
}

fn from_environment(variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    load(&Sources {
        environment: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Sources::default()
    })
}

/// The error's text, with the temporary folder left out.
fn told(result: Result<Loaded, ConfigError>) -> String {
    let text = result.unwrap_err().to_string();
    match text.split_once("tidings.toml") {
        Some((_, rest)) => format!("tidings.toml{rest}"),
        None => text,
    }
}

#[test]
fn the_issues_example() {
    let loaded = from_file(ISSUE_EXAMPLE).unwrap();
    let rule = RetentionRule {
        topics: Pattern::parse("github/**").unwrap(),
        age_max: Some(Duration::from_hours(7 * 24)),
        events_max: Some(100_000),
        bytes_max: Some(1 << 30),
    };
    let mut expected = Config::default();
    expected.log.retention = vec![rule];
    assert_eq!(loaded.config, expected);
}

#[test]
fn flags_over_environment_over_file_over_default() {
    let dir = TempDir::new().unwrap();
    let text = "listen = \"127.0.0.1:1\"\ndata_dir = \"a\"\n[log]\ndurability = \"os\"\n";
    let mut sources = file(&dir, text);
    let path = sources.file.clone().unwrap();
    sources.environment = vec![
        ("TIDINGS_LISTEN".into(), "[::1]:2".into()),
        ("TIDINGS_DATA_DIR".into(), "b".into()),
        ("HOME".into(), "/root".into()),
    ];
    sources.flags = vec![Flag {
        name: "--listen",
        key: "listen",
        value: "localhost:3".into(),
    }];
    let Loaded { config, provenance } = load(&sources).unwrap();
    assert_eq!(config.listen, "127.0.0.1:3".parse().unwrap());
    assert_eq!(config.data_dir, Path::new("b"));
    assert_eq!(config.log.durability, Durability::Os);
    assert_eq!(config.log.engine, Engine::Sqlite);
    assert_eq!(provenance.of("listen"), Origin::Flag("--listen"));
    let variable = Origin::Environment("TIDINGS_DATA_DIR".into());
    assert_eq!(provenance.of("data_dir"), variable);
    let line = Some(4);
    assert_eq!(provenance.of("log.durability"), Origin::File { path, line });
    assert_eq!(provenance.of("log.engine"), Origin::Default);
}

#[test]
fn which_file() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, port: u16| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("listen = \"127.0.0.1:{port}\"")).unwrap();
        path
    };
    let port = |sources: &Sources| load(sources).unwrap().config.listen.port();
    let mut sources = Sources {
        default_file: Some(dir.path().join("missing.toml")),
        ..Sources::default()
    };
    assert_eq!(port(&sources), 8080);
    sources.default_file = Some(write("default.toml", 1));
    assert_eq!(port(&sources), 1);
    let by_variable = write("variable.toml", 2).display().to_string();
    sources.environment = vec![("TIDINGS_CONFIG".into(), by_variable)];
    assert_eq!(port(&sources), 2);
    sources.file = Some(write("flag.toml", 3));
    assert_eq!(port(&sources), 3);
    sources.file = Some(dir.path().join("missing.toml"));
    assert!(matches!(
        load(&sources),
        Err(ConfigError::Unreadable { .. })
    ));
}

#[test]
fn wrong_files_are_refused_with_line_and_nearest_name() {
    let cases = [
        (
            "[log]\n\ndurabilty = \"os\"",
            "tidings.toml:3: unknown key log.durabilty; did you mean log.durability?",
        ),
        (
            "bytes_max = \"1GiB\"",
            "tidings.toml:1: unknown key bytes_max; did you mean log.bytes_max?",
        ),
        (
            "\n[logs]\nengine = \"memory\"",
            "tidings.toml:2: unknown key logs; did you mean log?",
        ),
        (
            "zzz = 1",
            "tidings.toml:1: unknown key zzz; `tidings config` lists all knobs",
        ),
        (
            "[[log.retention]]\ntopics = \"a\"\n[[log.retention]]\ntopics = \"b\"\nage = \"7d\"",
            "tidings.toml:5: unknown key log.retention[1].age; did you mean age_max?",
        ),
        (
            "log = 5",
            "tidings.toml:1: log: expected a table: [log] with keys below it; found the number 5",
        ),
        (
            "[log]\nbytes_max = \"10 gigs\"",
            "tidings.toml:2: log.bytes_max: expected a size such as 64MiB, or a whole number of \
             bytes, at least 1MiB; found \"10 gigs\"",
        ),
        (
            "[log]\nbytes_max = 1000",
            "tidings.toml:2: log.bytes_max: expected a size such as 64MiB, or a whole number of \
             bytes, at least 1MiB; found the number 1000",
        ),
        (
            "[subscribe]\nkeepalive = 15",
            "tidings.toml:2: subscribe.keepalive: expected a duration such as 500ms, 15s, 10m, 24h \
             or 7d, from 1ms to 24h; found the number 15",
        ),
        (
            "[log]\nengine = \"postgres\"",
            "tidings.toml:2: log.engine: expected \"sqlite\" or \"memory\"; found \"postgres\"",
        ),
        (
            "[publish]\nbatch_events_max = \"5\"",
            "tidings.toml:2: publish.batch_events_max: expected a whole number, from 1 to 1000000; \
             found \"5\"",
        ),
        (
            "[publish]\nbatch_events_max = 1.5",
            "tidings.toml:2: publish.batch_events_max: expected a whole number, from 1 to 1000000; \
             found a number with a fraction",
        ),
        (
            "listen = \"8080\"",
            "tidings.toml:1: listen: expected an IP address and a port, such as 127.0.0.1:8080, \
             [::1]:8080 or localhost:8080; found \"8080\"",
        ),
        (
            "data_dir = \"\"",
            "tidings.toml:1: data_dir: expected a path; found \"\"",
        ),
        (
            "[[log.retention]]\nage_max = \"7d\"",
            "tidings.toml:1: log.retention[0].topics: expected a topic or a pattern such as \
             \"github/**\"; found none",
        ),
        (
            "[[log.retention]]\ntopics = \"a/**/b\"",
            "tidings.toml:2: log.retention[0].topics: expected a topic or a pattern such as \
             \"github/**\" (`**` may only be the last segment of a pattern); found \"a/**/b\"",
        ),
        (
            "[[log.retention]]\ntopics = \"a\"\nevents_max = -1",
            "tidings.toml:3: log.retention[0].events_max: expected a whole number, at least 1; \
             found the number -1",
        ),
        (
            "[subscribe]\ndrain_retry_min = \"20s\"",
            "tidings.toml:2: subscribe.drain_retry_min: expected at most \
             subscribe.drain_retry_max, which is 10s; found 20s",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(told(from_file(text)), expected, "{text}");
    }
}

#[test]
fn syntax_errors_have_line_and_column() {
    let text = told(from_file("[log]\nengine = sqlite\n"));
    assert!(text.starts_with("tidings.toml:2:10: not TOML: "), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn wrong_variables_are_refused_with_name_and_nearest_name() {
    let cases = [
        (
            ("TIDINGS_LOG_DURABILITY", "os"),
            "environment variable TIDINGS_LOG_DURABILITY: unknown variable; did you mean \
             TIDINGS_LOG__DURABILITY?",
        ),
        (
            ("TIDINGS_LISTN", "127.0.0.1:1"),
            "environment variable TIDINGS_LISTN: unknown variable; did you mean TIDINGS_LISTEN?",
        ),
        (
            ("TIDINGS_LOG__ENGINE", "files"),
            "environment variable TIDINGS_LOG__ENGINE: log.engine: expected \"sqlite\" or \
             \"memory\"; found \"files\"",
        ),
        (
            ("TIDINGS_LOG__RETENTION", "[{topics = \"a\", age = \"1d\"}]"),
            "environment variable TIDINGS_LOG__RETENTION: unknown key log.retention[0].age; did \
             you mean age_max?",
        ),
    ];
    for (variable, expected) in cases {
        assert_eq!(told(from_environment(&[variable])), expected);
    }
}

#[test]
fn variables_of_a_clusters_manager_are_ignored() {
    let links = [
        ("TIDINGS_SERVICE_HOST", "10.0.0.1"),
        ("TIDINGS_SERVICE_PORT_HTTP", "8080"),
        ("TIDINGS_PORT", "tcp://10.0.0.1:8080"),
        ("TIDINGS_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ];
    let loaded = from_environment(&links).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(from_environment(&[("TIDINGS_PORT", "8080")]).is_err());
}

#[test]
fn variables_hold_all_kinds_of_values() {
    let loaded = from_environment(&[
        ("TIDINGS_LOG__BYTES_MAX", "64MiB"),
        ("TIDINGS_PUBLISH__EVENT_BYTES_MAX", "4096"),
        ("TIDINGS_PUBLISH__BATCH_EVENTS_MAX", "1_000"),
        ("TIDINGS_SUBSCRIBE__RETRY", "500ms"),
        ("TIDINGS_SERVER__HOSTS", "a.example.com, b.example.com"),
        (
            "TIDINGS_SERVER__ORIGINS",
            "[\"https://a.example.com:8443\"]",
        ),
        (
            "TIDINGS_LOG__RETENTION",
            r#"[{"topics": "a/*", "events_max": 5}, {"topics": "**"}]"#,
        ),
    ]);
    let config = loaded.unwrap().config;
    assert_eq!(config.log.bytes_max, 64 << 20);
    assert_eq!(config.publish.event_bytes_max, 4_096);
    assert_eq!(config.publish.batch_events_max, 1_000);
    assert_eq!(config.subscribe.retry, Duration::from_millis(500));
    assert_eq!(config.server.hosts, ["a.example.com", "b.example.com"]);
    assert_eq!(config.server.origins, ["https://a.example.com:8443"]);
    assert_eq!(config.log.retention.len(), 2);
    assert_eq!(config.log.retention[0].events_max, Some(5));
    assert_eq!(config.log.retention[1].age_max, None);
    let toml = from_environment(&[("TIDINGS_LOG__RETENTION", "[{topics = \"a\"}]")]);
    assert_eq!(toml.unwrap().config.log.retention.len(), 1);
}

#[test]
fn origins_are_what_browsers_send() {
    let origins = |origin: &str| from_file(&format!("[server]\norigins = [{origin:?}]"));
    for good in [
        "https://app.example.com",
        "http://localhost:3000",
        "http://[::1]:3000",
        "http://[::1]",
        "capacitor://localhost",
    ] {
        assert_eq!(origins(good).unwrap().config.server.origins, [good]);
    }
    for bad in [
        "*",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://App.example.com",
        "https://app.example.com:443",
        "http://a:0",
        "http://a:66000",
        "http://",
        "http://[zz]",
    ] {
        let text = told(origins(bad));
        assert!(
            text.contains("server.origins: expected an array of origins"),
            "{text}"
        );
    }
}

#[test]
fn what_is_shown_gives_the_same_configuration() {
    let text = format!(
        "{ISSUE_EXAMPLE}[[log.retention]]\ntopics = \"**\"\n[server]\nhosts = [\"a.example\"]\n\
         head_timeout = \"1500ms\"\n[publish]\nevent_bytes_max = 12345\n"
    );
    let dir = TempDir::new().unwrap();
    let mut sources = file(&dir, &text);
    sources.environment = vec![("TIDINGS_SUBSCRIBE__FILTERS_MAX".into(), "7".into())];
    let loaded = load(&sources).unwrap();
    let shown = loaded.to_toml();
    assert_eq!(from_file(&shown).unwrap().config, loaded.config, "{shown}");
    for line in [
        "listen = \"127.0.0.1:8080\" # ",
        "tidings.toml:2\n",
        "engine = \"sqlite\" # ",
        "filters_max = 7 # environment variable TIDINGS_SUBSCRIBE__FILTERS_MAX; default 128\n",
        "keepalive = \"15s\" # default\n",
        "    { topics = \"github/**\", age_max = \"7d\", events_max = 100000, bytes_max = \"1GiB\" },\n",
        "# Expected: a size such as 64MiB, or a whole number of bytes, from 1B to 256MiB.\n",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let default = load(&Sources::default()).unwrap().to_toml();
    assert_eq!(from_file(&default).unwrap().config, Config::default());
}

#[test]
fn programs_are_checked_too() {
    assert!(Config::default().check().is_ok());
    let config = Config {
        subscribe: SubscribeConfig {
            filters_max: 0,
            ..SubscribeConfig::default()
        },
        ..Config::default()
    };
    assert_eq!(
        config.check().unwrap_err().to_string(),
        "configuration: subscribe.filters_max: expected a whole number, from 1 to 10000; found 0"
    );
}
