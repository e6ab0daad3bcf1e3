//! A journal's URL, taken apart. Knows nothing of connections.

use crate::cluster::BadUrl;
use percent_encoding::percent_decode_str;
use std::fmt;

/// Redis' port.
const NODE_PORT: u16 = 6379;

/// Sentinel's port.
const SENTINEL_PORT: u16 = 26379;

/// Where a journal is. Printed, it is a URL without user and password.
pub(super) struct Address {
    pub(super) tls: bool,
    pub(super) place: Place,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// What to connect to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Node {
        host: Host,
        database: i64,
    },
    /// The node that one of these says is the master of that name.
    Sentinel {
        sentinels: Vec<Host>,
        master: String,
    },
}

/// A host and its port. An IPv6 address has its brackets only when printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl Address {
    /// # Errors
    ///
    /// [`BadUrl`]: never with a piece of the URL, since a password that is not encoded can be taken for any part of it.
    pub(super) fn parse(url: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| bad("there is no `://` in it"))?;
        let (tls, sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis-sentinel" => (false, true),
            "rediss-sentinel" => (true, true),
            _ => return Err(bad("the scheme is not one of Redis")),
        };
        if rest.contains(['?', '#']) {
            return Err(bad("it has `?` or `#`"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let place = if sentinel {
            sentinels(hosts, path)?
        } else {
            node(hosts, path)?
        };
        Ok(Self {
            tls,
            place,
            user: decode(user)?,
            password: decode(password)?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { "s" } else { "" };
        match &self.place {
            Place::Node { host, database: 0 } => write!(f, "redis{tls}://{host}"),
            Place::Node { host, database } => write!(f, "redis{tls}://{host}/{database}"),
            Place::Sentinel { sentinels, master } => {
                let hosts: Vec<String> = sentinels.iter().map(Host::to_string).collect();
                write!(f, "redis{tls}-sentinel://{}/{master}", hosts.join(","))
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

fn node(hosts: &str, path: &str) -> Result<Place, BadUrl> {
    let database = match path {
        "" => 0,
        _ => path
            .parse::<u32>()
            .map_err(|_| bad("the database is not a number"))?,
    };
    Ok(Place::Node {
        host: host(hosts, NODE_PORT)?,
        database: database.into(),
    })
}

fn sentinels(hosts: &str, path: &str) -> Result<Place, BadUrl> {
    let name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if path.is_empty() || !path.chars().all(name) {
        return Err(bad(
            "the master's name, which Sentinel knows it by, does not follow the hosts after a `/`",
        ));
    }
    Ok(Place::Sentinel {
        sentinels: hosts
            .split(',')
            .map(|one| host(one, SENTINEL_PORT))
            .collect::<Result<_, _>>()?,
        master: path.to_owned(),
    })
}

fn host(text: &str, default_port: u16) -> Result<Host, BadUrl> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest
                .split_once(']')
                .ok_or_else(|| bad("a `]` is missing"))?;
            match rest.strip_prefix(':') {
                None if !rest.is_empty() => return Err(bad("something follows a `]`")),
                port => (name, port),
            }
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
    if name.is_empty() || !name.chars().all(known) {
        return Err(bad("a host is missing, or is none"));
    }
    Ok(Host {
        name: name.to_owned(),
        port: match port {
            None => default_port,
            Some(port) => port.parse().map_err(|_| bad("a port is not a number"))?,
        },
    })
}

fn decode(text: &str) -> Result<Option<String>, BadUrl> {
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| bad("user or password is not UTF-8"))?;
    Ok((!decoded.is_empty()).then(|| decoded.into_owned()))
}

fn bad(why: &str) -> BadUrl {
    BadUrl(format!(
        "{why}; expected redis://[user:password@]host[:port][/database] or redis-sentinel://[user:password@]host[:port],.../master, \
         rediss with TLS, other characters than letters and digits in user and password as %XX"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host {
            name: name.to_owned(),
            port,
        }
    }

    #[test]
    fn a_node_has_a_port_and_a_database_of_its_own_if_it_says_so() {
        for (url, at, database, tls, printed) in [
            (
                "redis://redis.example",
                host("redis.example", 6379),
                0,
                false,
                "redis://redis.example:6379",
            ),
            (
                "redis://127.0.0.1:7000/",
                host("127.0.0.1", 7000),
                0,
                false,
                "redis://127.0.0.1:7000",
            ),
            (
                "rediss://[::1]:7000/3",
                host("::1", 7000),
                3,
                true,
                "rediss://[::1]:7000/3",
            ),
            (
                "redis://[fe80::1]",
                host("fe80::1", 6379),
                0,
                false,
                "redis://[fe80::1]:6379",
            ),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.place, Place::Node { host: at, database });
            assert_eq!(address.tls, tls, "{url}");
            assert_eq!(address.to_string(), printed);
        }
    }

    #[test]
    fn sentinels_are_several_and_name_a_master() {
        let address =
            Address::parse("rediss-sentinel://u:p@one,two:7000,[::1]:7001/my-master").unwrap();
        assert_eq!(
            address.place,
            Place::Sentinel {
                sentinels: vec![host("one", 26379), host("two", 7000), host("::1", 7001)],
                master: "my-master".to_owned(),
            }
        );
        assert_eq!(
            address.to_string(),
            "rediss-sentinel://one:26379,two:7000,[::1]:7001/my-master"
        );
    }

    #[test]
    fn user_and_password_are_decoded_and_never_printed() {
        for (url, user, password) in [
            ("redis://h", None, None),
            ("redis://:s3cret@h", None, Some("s3cret")),
            ("redis://me:s3cret@h", Some("me"), Some("s3cret")),
            ("redis://me@h", Some("me"), None),
            ("redis://me:a%40b%2Fc%3Ad@h", Some("me"), Some("a@b/c:d")),
            ("redis://me:a@b:c@h", Some("me"), Some("a@b:c")),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.user.as_deref(), user, "{url}");
            assert_eq!(address.password.as_deref(), password, "{url}");
            assert_eq!(address.to_string(), "redis://h:6379");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_showing_any_of_it() {
        for url in [
            "s3cret",
            "http://s3cret",
            "redis://",
            "redis://:s3cret@",
            "redis://:s3cret@h:port",
            "redis://h:65536",
            "redis://h/s3cret",
            "redis://h/-1",
            "redis://:s3cret/s3cret@h",
            "redis://:s3cret?@h",
            "redis://:s3cret#@h",
            "redis://h?db=1",
            "redis://one,two",
            "redis://[::1",
            "redis://[::1]s3cret",
            "redis://:%ff@h",
            "redis-sentinel://h",
            "redis-sentinel://h/",
            "redis-sentinel://h,/master",
            "redis-sentinel://:s3cret/master@h/master",
        ] {
            let refused = Address::parse(url).err().expect(url).to_string();
            assert!(!refused.contains("s3cret"), "{refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
    }
}
