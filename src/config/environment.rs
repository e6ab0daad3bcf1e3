//! The variables `TIDINGS_*`: which are knobs, which are something else. The one module that reads the
//! process's environment.

use std::path::PathBuf;

/// What the names of all variables of Tidings begin with.
pub const PREFIX: &str = "TIDINGS_";

/// The configuration file, as `--config`.
pub const CONFIG: &str = "TIDINGS_CONFIG";

/// What the hub logs on standard error, such as `debug` or `tidings=debug,warn`; `info` unless told. No
/// knob, since it counts before the configuration is read.
pub const TRACE: &str = "TIDINGS_TRACE";

/// Where `tidings publish` and `tidings subscribe` find the hub, as `--url`.
pub const URL: &str = "TIDINGS_URL";

/// Variables that are not knobs, but are known.
pub(super) const OTHERS: [&str; 3] = [CONFIG, TRACE, URL];

/// All variables `TIDINGS_*` of this process. What is not UTF-8 gets U+FFFD, and is refused as such.
#[must_use]
pub fn of_process() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
            (text(name), text(value))
        })
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// The file that `TIDINGS_CONFIG` names.
pub(super) fn config_file(environment: &[(String, String)]) -> Option<PathBuf> {
    let (_, value) = environment.iter().find(|(name, _)| name == CONFIG)?;
    Some(value.into())
}

/// The variable of a knob: `log.durability` is `TIDINGS_LOG__DURABILITY`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Whether a cluster's manager sets the variable by itself in every container beside a service that is
/// named `tidings` (`TIDINGS_SERVICE_HOST`, `TIDINGS_PORT_8080_TCP_ADDR`, ...): never meant for us.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    match rest {
        "SERVICE_HOST" | "SERVICE_PORT" => true,
        "PORT" => value.contains("://"),
        _ => rest.starts_with("SERVICE_PORT_") || rest.strip_prefix("PORT_").is_some_and(digit),
    }
}

/// One variable that is not a knob.
#[must_use]
pub fn get(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    Some(value.to_string_lossy().into_owned())
}
