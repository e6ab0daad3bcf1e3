//! What went wrong with Redis, in words: never with a user or a password.

use crate::cluster::journal::{ConnectError, Fault};
use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};

/// An error of the connection or of the server, in one line.
pub(super) fn text(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        _ if error.kind() == ErrorKind::Io => io_text(error),
        _ => error.to_string(),
    }
}

/// What the server said, in one line.
pub(super) fn server_text(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// The library's own error of a closed connection shows its Rust type.
fn io_text(error: &RedisError) -> String {
    if std::error::Error::source(error).is_some() {
        error.to_string()
    } else {
        "the connection is closed".to_owned()
    }
}

/// Whether the server takes no writes now, but is well otherwise: out of memory or disk, or without enough replicas.
pub(super) fn refuses_writes(error: &ServerError) -> bool {
    matches!(error.code(), "OOM" | "MISCONF" | "NOREPLICAS")
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        Self(text(&error))
    }
}

impl From<ServerError> for Fault {
    fn from(error: ServerError) -> Self {
        Self(server_text(&error))
    }
}

/// Why there is no connection to that host, and whether it may heal by itself.
pub(super) fn connect_error(host: &str, error: &RedisError) -> ConnectError {
    let text = text(error);
    let refused = |why: &str| ConnectError::Refused(format!("{host} {why}"));
    match error.kind() {
        ErrorKind::AuthenticationFailed => refused("refuses the user or the password"),
        ErrorKind::Parse => {
            refused("does not speak as Redis does: is it another port, or one with TLS?")
        }
        ErrorKind::InvalidClientConfig => refused(&format!("cannot be connected to: {text}")),
        ErrorKind::Server(
            ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot,
        ) => refused("is a node of a Redis Cluster, which cannot keep a journal"),
        ErrorKind::Server(ServerErrorKind::NoPerm) => {
            refused(&format!("does not permit what a journal needs: {text}"))
        }
        _ if text.contains("Authentication required") => {
            refused("asks for a password, and none is configured")
        }
        _ if text.starts_with("WRONGPASS") => refused("refuses the user or the password"),
        _ if text.contains("DB index is out of range") => refused("has no such database"),
        _ if text.contains("UnknownIssuer") => {
            refused("has a certificate of a CA that is not trusted")
        }
        _ if text.contains("invalid peer certificate") => {
            refused(&format!("is not trusted: {text}"))
        }
        _ if text.contains("corrupt message") => refused("does not speak TLS on that port"),
        _ => ConnectError::Unavailable(format!("{host}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_password_is_refused_and_a_closed_port_is_not() {
        let wrong = RedisError::from((ErrorKind::AuthenticationFailed, "failed"));
        assert_eq!(
            connect_error("h:1", &wrong),
            ConnectError::Refused("h:1 refuses the user or the password".to_owned())
        );
        let closed = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(
            connect_error("h:1", &closed),
            ConnectError::Unavailable("h:1: connection refused".to_owned())
        );
    }
}
