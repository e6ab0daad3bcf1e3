//! A broker's address, out of a URL: knows the URL's form, and never shows its user part.

use crate::cluster::BadUrl;
use lapin::{
    types::Heartbeat,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt;

/// In seconds. A broker that says nothing for twice as long is taken for dead.
const HEARTBEAT: Heartbeat = 5;

/// The longest name that AMQP can tell.
const VHOST_BYTES_MAX: usize = 255;

/// `amqp://[user[:password]@]host[:port][/vhost]`, or `amqps://` for TLS. The user is `guest`, the virtual host `/` unless
/// given. `Display` and `Debug` leave the user part out.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) tls: bool,
    /// A name, or an IP address (of version 6 without its brackets).
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) vhost: String,
    pub(super) user: String,
    password: String,
}

impl Address {
    /// `password` takes the place of the URL's.
    ///
    /// # Errors
    ///
    /// A text that repeats nothing of the URL, since a password might be anywhere in a broken one.
    pub(super) fn parse(url: &str, password: Option<&str>) -> Result<Self, BadUrl> {
        let (tls, rest) = match url.split_once("://") {
            Some(("amqp", rest)) => (false, rest),
            Some(("amqps", rest)) => (true, rest),
            _ => return Err(bad("expected amqp:// or amqps://")),
        };
        if rest.contains(['?', '#']) {
            return Err(bad(
                "expected no ? and no # (write them as %3F and %23 in a name or a password)",
            ));
        }
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (user, given) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, given)) => (decoded(user)?, decoded(given)?),
            None => ("guest".to_owned(), "guest".to_owned()),
        };
        let (host, port) = host_and_port(place)?;
        let vhost = match decoded(vhost)? {
            none if none.is_empty() => "/".to_owned(),
            vhost if vhost.len() > VHOST_BYTES_MAX => {
                return Err(bad("expected a virtual host of at most 255 bytes"));
            }
            vhost => vhost,
        };
        Ok(Self {
            tls,
            host,
            port: port.unwrap_or_else(|| scheme(tls).default_port()),
            vhost,
            user,
            password: password.map_or(given, str::to_owned),
        })
    }

    /// The same for lapin.
    pub(super) fn uri(&self) -> AMQPUri {
        AMQPUri {
            scheme: scheme(self.tls),
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.user.clone(),
                    password: self.password.clone(),
                },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(HEARTBEAT),
                ..AMQPQueryString::default()
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "amqps://" } else { "amqp://" })?;
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "{}:{}", self.host, self.port)?;
        }
        if self.vhost != "/" {
            write!(f, "/{}", utf8_percent_encode(&self.vhost, NON_ALPHANUMERIC))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

fn scheme(tls: bool) -> AMQPScheme {
    if tls {
        AMQPScheme::AMQPS
    } else {
        AMQPScheme::AMQP
    }
}

fn host_and_port(place: &str) -> Result<(String, Option<u16>), BadUrl> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest
                .split_once(']')
                .ok_or_else(|| bad("expected a ] after the address"))?;
            (
                host,
                port.strip_prefix(':').or((!port.is_empty()).then_some("?")),
            )
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(bad("expected a host"));
    }
    let port = match port.map(str::parse) {
        Some(Ok(0) | Err(_)) => return Err(bad("expected a port of 1 to 65535 after the host")),
        Some(Ok(port)) => Some(port),
        None => None,
    };
    Ok((host.to_owned(), port))
}

fn decoded(part: &str) -> Result<String, BadUrl> {
    match percent_decode_str(part).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(bad("expected UTF-8 behind its percent signs")),
    }
}

fn bad(what: &str) -> BadUrl {
    BadUrl(format!(
        "{what}: a journal on RabbitMQ is amqp://[user:password@]host[:port][/vhost]"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Address {
        Address::parse(url, None).unwrap()
    }

    #[test]
    fn what_is_left_out_has_the_brokers_defaults() {
        let address = parse("amqp://broker");
        assert_eq!(("broker", 5672), (address.host.as_str(), address.port));
        assert_eq!("/", address.vhost);
        assert_eq!(
            ("guest", "guest"),
            (address.user.as_str(), address.password.as_str())
        );
        assert_eq!(5671, parse("amqps://broker").port);
        assert_eq!("/", parse("amqp://broker/").vhost);
    }

    #[test]
    fn parts_are_percent_decoded_and_reach_lapin() {
        let uri = parse("amqps://a%40b:p%2F%3A@10.0.0.1:7000/team%2Fa").uri();
        assert_eq!(AMQPScheme::AMQPS, uri.scheme);
        assert_eq!("a@b", uri.authority.userinfo.username);
        assert_eq!("p/:", uri.authority.userinfo.password);
        assert_eq!(
            ("10.0.0.1", 7000),
            (uri.authority.host.as_str(), uri.authority.port)
        );
        assert_eq!("team/a", uri.vhost);
    }

    #[test]
    fn a_password_from_elsewhere_takes_the_place_of_the_urls() {
        let address = Address::parse("amqp://hub:old@broker", Some("new")).unwrap();
        assert_eq!(
            ("hub", "new"),
            (address.user.as_str(), address.password.as_str())
        );
        assert_eq!("", parse("amqp://hub@broker").password);
    }

    #[test]
    fn what_is_shown_has_no_user_part() {
        for (url, shown) in [
            ("amqp://hub:secret@broker", "amqp://broker:5672"),
            (
                "amqps://hub:secret@broker/team%2Fa",
                "amqps://broker:5671/team%2Fa",
            ),
            ("amqp://hub:secret@[::1]:7000/%2f", "amqp://[::1]:7000"),
            ("amqp://hub:se@cret@broker:1/v", "amqp://broker:1/v"),
        ] {
            assert_eq!(shown, parse(url).to_string());
            assert_eq!(format!("Address({shown})"), format!("{:?}", parse(url)));
        }
    }

    #[test]
    fn a_bad_url_is_told_without_repeating_it() {
        for url in [
            "http://hub:secret@broker",
            "broker",
            "amqp:broker",
            "amqp://",
            "amqp://hub:secret@",
            "amqp://hub:secret@:5672",
            "amqp://hub:secret@broker:",
            "amqp://hub:secret@broker:0",
            "amqp://hub:secret@broker:secret",
            "amqp://hub:secret@[::1",
            "amqp://hub:secret@[::1]secret",
            "amqp://hub:secret%ff@broker",
            "amqp://hub:secret@broker?heartbeat=1",
            "amqp://hub:secret@bro ker",
        ] {
            let BadUrl(text) = Address::parse(url, None).unwrap_err();
            assert!(!text.contains("secret"), "{url}: {text}");
        }
        let vhost = format!("amqp://broker/{}", "v".repeat(256));
        assert!(Address::parse(&vhost, None).is_err());
    }
}
