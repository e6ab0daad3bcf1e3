//! Where a NATS broker is and who asks, from a journal's URL. Connects to nothing.

use crate::cluster::BadUrl;
use percent_encoding::percent_decode_str;

const PORT: u16 = 4222;

/// One server or several of one cluster.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Whether TLS is asked for. A server that asks for it gets it all the same.
    pub(super) tls: bool,
    /// `host:port` of each; at least one.
    pub(super) servers: Vec<String>,
    pub(super) login: Login,
}

/// What a server is told of who asks. Without `Debug`: it holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Nobody,
    Token(String),
    User { name: String, password: String },
}

impl Address {
    /// Reads `nats://` or `tls://`, then `user:password@` or `token@` or nothing, then servers with commas between.
    ///
    /// `password` replaces the URL's; where the URL names no user, it is a token.
    pub(super) fn parse(url: &str, password: Option<&str>) -> Result<Self, BadUrl> {
        let (tls, rest) = if let Some(rest) = url.strip_prefix("nats://") {
            (false, rest)
        } else if let Some(rest) = url.strip_prefix("tls://") {
            (true, rest)
        } else {
            return Err(bad("begin with nats:// or tls://"));
        };
        // No text below repeats a part of the URL: where a secret was not percent-encoded, it may be in any of them.
        let (user_part, servers) = match rest.split_once('@') {
            Some((user_part, servers)) => (Some(user_part), servers),
            None => (None, rest),
        };
        if servers.contains('@') {
            return Err(bad(
                "have one user part, before the first server, and write @ in a password as %40",
            ));
        }
        let servers = servers.strip_suffix('/').unwrap_or(servers);
        Ok(Self {
            tls,
            servers: servers.split(',').map(server).collect::<Result<_, _>>()?,
            login: login(user_part, password)?,
        })
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "tls" } else { "nats" }
    }

    /// The URL without its user part.
    pub(super) fn describe(&self) -> String {
        format!("{}://{}", self.scheme(), self.servers.join(","))
    }
}

fn bad(must: &str) -> BadUrl {
    BadUrl(format!(
        "a NATS URL must {must}, such as nats://user:password@one:4222,two:4222"
    ))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`, as `host:port`.
fn server(text: &str) -> Result<String, BadUrl> {
    let (host, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port
            .parse()
            .ok()
            .filter(|&port| port > 0)
            .ok_or_else(|| bad("have ports from 1 to 65535, and IPv6 addresses in brackets"))?,
        None if port.is_empty() => PORT,
        None => return Err(bad("have nothing but a port behind a server")),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let well_formed = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    if !well_formed {
        return Err(bad(
            "name servers with commas between, and no path or parameters",
        ));
    }
    Ok(format!("{host}:{port}"))
}

fn login(user_part: Option<&str>, password: Option<&str>) -> Result<Login, BadUrl> {
    let decode = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(String::from)
            .map_err(|_| bad("have a user part that is UTF-8"))
    };
    Ok(match (user_part, password) {
        (None | Some(""), None) => Login::Nobody,
        (None | Some(""), Some(token)) => Login::Token(token.to_owned()),
        (Some(user_part), password) => match (user_part.split_once(':'), password) {
            (Some((name, own)), password) => Login::User {
                name: decode(name)?,
                password: password
                    .map_or_else(|| decode(own), |password| Ok(password.to_owned()))?,
            },
            (None, Some(password)) => Login::User {
                name: decode(user_part)?,
                password: password.to_owned(),
            },
            (None, None) => Login::Token(decode(user_part)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str, password: Option<&str>) -> Address {
        match Address::parse(url, password) {
            Ok(address) => address,
            Err(error) => panic!("{url}: {error}"),
        }
    }

    fn user(name: &str, password: &str) -> Login {
        Login::User {
            name: name.to_owned(),
            password: password.to_owned(),
        }
    }

    #[test]
    fn servers_get_their_port_and_their_scheme() {
        for (url, tls, servers) in [
            ("nats://one", false, &["one:4222"][..]),
            ("nats://one:1/", false, &["one:1"]),
            ("tls://one,two:7", true, &["one:4222", "two:7"]),
            ("nats://[::1],[::2]:9", false, &["[::1]:4222", "[::2]:9"]),
            (
                "nats://a:b@10.0.0.1,n-2.example",
                false,
                &["10.0.0.1:4222", "n-2.example:4222"],
            ),
        ] {
            let address = parsed(url, None);
            assert_eq!(
                (address.tls, &address.servers[..]),
                (
                    tls,
                    &servers.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()[..]
                ),
                "{url}"
            );
        }
    }

    #[test]
    fn the_given_password_replaces_that_of_the_url() {
        for (url, password, login) in [
            ("nats://h", None, Login::Nobody),
            ("nats://h", Some("p"), Login::Token("p".to_owned())),
            ("nats://t%40%2C@h", None, Login::Token("t@,".to_owned())),
            ("nats://u@h", Some("p"), user("u", "p")),
            ("nats://u:own@h", None, user("u", "own")),
            ("nats://u:%2f%C3%A4@h", None, user("u", "/ä")),
            ("nats://u:own@h", Some("p%40"), user("u", "p%40")),
        ] {
            assert!(parsed(url, password).login == login, "{url} {password:?}");
        }
    }

    #[test]
    fn a_description_has_no_secret() {
        let address = parsed("tls://user:secret@one,two:7/", None);
        assert_eq!(address.describe(), "tls://one:4222,two:7");
        assert_eq!(parsed("nats://secret@h", None).describe(), "nats://h:4222");
    }

    #[test]
    fn a_bad_url_is_told_without_its_parts() {
        for url in [
            "redis://secret",
            "nats://",
            "nats://secret@",
            "nats://h,",
            "nats://h:0",
            "nats://h:65536",
            "nats://h:secret",
            "nats://u:p@secret@h",
            "nats://u:p@h,u:secret@h2",
            "nats://h/secret",
            "nats://h?secret",
            "nats://::1",
            "nats://[::1]secret",
            "nats://[secret]",
            "nats://u:%ff@h",
        ] {
            let Err(BadUrl(text)) = Address::parse(url, None) else {
                panic!("{url}");
            };
            assert!(
                text.starts_with("a NATS URL must ") && !text.contains("secret"),
                "{text}"
            );
        }
    }
}
