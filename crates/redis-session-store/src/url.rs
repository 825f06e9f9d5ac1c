//! Redis URLs, read by ourselves: fred takes schemes that it does not know, and `rediss://` in a build without TLS,
//! for plain text, and so would send the password in clear.

use std::fmt;
use std::path::PathBuf;

use redis_session_core::{Error, Kind};

use crate::tls;

/// What a URL says: `redis://[[user]:password@]host[:port][/database]`, the same with `rediss://`,
/// `redis+unix://[[user]:password@]/path/to/socket[?db=1&user=…&pass=…]`,
/// `redis-cluster://[[user]:password@]host[:port][,host[:port]…]`, or
/// `redis-sentinel://[[user]:password@]host[:port][,host[:port]…]/primary[/database]`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) shape: Shape,
    /// At least one.
    pub(crate) servers: Vec<Place>,
    /// `None`: the default user, or nobody if there is no password either.
    pub(crate) user: Option<String>,
    /// `None`: no password.
    pub(crate) password: Option<String>,
    pub(crate) database: u8,
}

/// How servers stand to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Single,
    /// A cluster; any of its servers says where the others are.
    Cluster,
    /// Sentinels that know the primary of this name.
    Sentinel(String),
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp {
        /// A name or an address; of version 6 in brackets.
        host: String,
        port: u16,
        tls: bool,
    },
    /// The path of a unix socket.
    Socket(PathBuf),
}

/// As in a URL.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Without the password.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, servers, database, .. } = self;
        let places = servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let tls = if matches!(servers.first(), Some(Place::Tcp { tls: true, .. })) { "s" } else { "" };
        match (shape, servers.first()) {
            (_, Some(Place::Socket(_))) => write!(f, "redis+unix://{places}?db={database}"),
            (Shape::Single, _) => write!(f, "redis{tls}://{places}/{database}"),
            (Shape::Cluster, _) => write!(f, "redis{tls}-cluster://{places}"),
            (Shape::Sentinel(name), _) => write!(f, "redis{tls}-sentinel://{places}/{name}/{database}"),
        }
    }
}

impl Url {
    /// Reads a URL. Error texts never quote it: a password may stand anywhere in what does not parse.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            wrong("a Redis URL begins with \"redis://\": write redis://host:6379, or redis://user:password@host:6379/0")
        })?;
        match scheme {
            "redis" | "valkey" => Self::of_hosts(Kin::Single, rest, false),
            "redis-cluster" | "valkey-cluster" => Self::of_hosts(Kin::Cluster, rest, false),
            "redis-sentinel" | "valkey-sentinel" => Self::of_hosts(Kin::Sentinel, rest, false),
            "rediss" | "valkeys" if tls::IS_BUILT_IN => Self::of_hosts(Kin::Single, rest, true),
            "rediss-cluster" | "valkeys-cluster" if tls::IS_BUILT_IN => Self::of_hosts(Kin::Cluster, rest, true),
            "rediss-sentinel" | "valkeys-sentinel" if tls::IS_BUILT_IN => Self::of_hosts(Kin::Sentinel, rest, true),
            "redis+unix" | "valkey+unix" | "unix" => Self::of_socket(rest),
            other => Err(refused(other)),
        }
    }

    fn of_hosts(kin: Kin, rest: &str, tls: bool) -> Result<Self, Error> {
        if rest.contains(['?', '#']) {
            return Err(wrong(
                "a Redis URL takes no \"?\" and no \"#\": write redis://user:password@host:6379/0, \
                 and %3F or %23 for these signs in a password",
            ));
        }
        let (credentials, place) = split_credentials(rest);
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (user, password) = read_credentials(credentials)?;
        let (port, many) = match kin {
            Kin::Single => (6379, false),
            Kin::Cluster => (6379, true),
            Kin::Sentinel => (26_379, true),
        };
        let authorities = if many { authority.split(',').collect() } else { vec![authority] };
        let read = |text| read_authority(text, port).map(|(host, port)| Place::Tcp { host, port, tls });
        let servers = authorities.into_iter().map(read).collect::<Result<_, _>>()?;
        let (shape, database) = match kin {
            Kin::Single => (Shape::Single, read_database(path)?),
            Kin::Cluster if matches!(path, "" | "0") => (Shape::Cluster, 0),
            Kin::Cluster => {
                return Err(wrong(
                    "a Redis Cluster has no databases: write redis-cluster://host:6379 and nothing after it",
                ));
            }
            Kin::Sentinel => {
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                if name.is_empty() {
                    return Err(wrong(
                        "a URL of Sentinels ends with the name of their primary: write redis-sentinel://host:26379/mymaster",
                    ));
                }
                (Shape::Sentinel(decode(name, "primary's name")?), read_database(database)?)
            }
        };
        Ok(Self { shape, servers, user, password, database })
    }

    /// A path may hold any sign but "?" and "#". Who has no room for credentials before it (an empty host after "@" is
    /// no URL to some programs) writes them behind it, as with redis-rs.
    fn of_socket(rest: &str) -> Result<Self, Error> {
        if !cfg!(unix) {
            return Err(wrong("there are no unix sockets on this system: write redis://host:6379"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').ok_or_else(no_path)?;
        let (credentials, host) = split_credentials(authority);
        if !matches!(host, "" | "localhost") || path.is_empty() || path.contains('#') {
            return Err(no_path());
        }
        let (user, password) = read_credentials(credentials)?;
        let path = format!("/{}", decode(path, "path")?);
        let servers = vec![Place::Socket(path.into())];
        let mut url = Self { shape: Shape::Single, servers, user, password, database: 0 };
        for (name, value) in
            query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
        {
            match name {
                "db" => url.database = read_database(value)?,
                "user" => url.user = Some(decode(value, "user or password")?),
                "pass" => url.password = Some(decode(value, "user or password")?),
                _ => {
                    return Err(wrong(
                        "the URL of a unix socket takes only these after its \"?\": write redis+unix:///path?db=1&user=name&pass=password",
                    ));
                }
            }
        }
        Ok(url)
    }
}

/// What a scheme says.
#[derive(Clone, Copy)]
enum Kin {
    Single,
    Cluster,
    Sentinel,
}

fn no_path() -> Error {
    wrong("the URL of a unix socket names its whole path: write redis+unix:///run/redis/redis.sock")
}

fn refused(scheme: &str) -> Error {
    match scheme {
        "rediss" | "valkeys" | "rediss-cluster" | "valkeys-cluster" | "rediss-sentinel" | "valkeys-sentinel" => wrong(
            "this build has no TLS, so a \"rediss://\" URL would send the password in clear: \
             switch the feature \"tls\" of redis-session on, or give a fred pool with TLS",
        ),
        cluster if cluster.contains("cluster") => wrong(
            "the URL of a cluster begins otherwise: write redis-cluster://host:6379, or rediss-cluster:// for TLS",
        ),
        sentinel if sentinel.contains("sentinel") => wrong(
            "the URL of Sentinels begins otherwise: write redis-sentinel://host:26379/mymaster, or rediss-sentinel:// for TLS",
        ),
        unix if unix.contains("unix") => {
            wrong("the URL of a unix socket begins otherwise: write redis+unix:///run/redis/redis.sock")
        }
        tls if tls.contains("tls") || tls.contains("ssl") => {
            wrong("the URL of a Redis with TLS begins with \"rediss://\": write rediss://host:6379")
        }
        _ => wrong("the scheme of the Redis URL is not known: write redis://host:6379"),
    }
}

type Credentials = (Option<String>, Option<String>);

/// What is before the last "@", and what is behind it. `None`: there is none.
fn split_credentials(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, text),
    }
}

fn read_credentials(text: Option<&str>) -> Result<Credentials, Error> {
    let Some(text) = text else { return Ok((None, None)) };
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (decode(user, "user or password")?, decode(password, "user or password")?),
        None => {
            return Err(wrong(
                "the Redis URL has a user without a password: write redis://:password@host if it is one",
            ));
        }
    };
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok((given(user), given(password)))
}

/// The address itself, of one of version 6.
pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn read_authority(text: &str, usual: u16) -> Result<(String, u16), Error> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        None => usual,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            wrong("the port of the Redis URL is not a number from 1 to 65535: write redis://host:6379")
        })?,
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if bracketed && host[1..host.len() - 1].parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((host.to_owned(), port));
    }
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    match host {
        "" => Err(wrong("the Redis URL names no host: write redis://127.0.0.1:6379")),
        host if host.contains(',') => Err(wrong(
            "the Redis URL names several hosts: write the one of a single Redis server, or redis-cluster:// or \
                 redis-sentinel:// before them",
        )),
        host if host.chars().all(fits) => Ok((host.to_owned(), port)),
        _ => {
            Err(wrong("the host of the Redis URL is no name and no address: write redis://host:6379 or redis://[::1]"))
        }
    }
}

fn read_database(path: &str) -> Result<u8, Error> {
    let digits = path.bytes().all(|b| b.is_ascii_digit());
    match path {
        "" => Some(0),
        path => path.parse().ok().filter(|_| digits),
    }
    .ok_or_else(|| wrong("the database of the Redis URL is not a number from 0 to 255: write redis://host:6379/0"))
}

/// Percent-decoding of a part; `+` stays.
fn decode(text: &str, part: &str) -> Result<String, Error> {
    let malformed = || {
        let text =
            format!("a \"%\" in the {part} of the Redis URL is not followed by two hex digits: write %25 for it");
        Error::new(Kind::Config, text)
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(malformed)?;
        let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(malformed)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| Error::new(Kind::Config, format!("the {part} of the Redis URL is not UTF-8")))
}

fn wrong(message: &'static str) -> Error {
    Error::new(Kind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str, port: u16, user: Option<&str>, password: Option<&str>, database: u8) -> Url {
        let servers = vec![Place::Tcp { host: host.to_owned(), port, tls: false }];
        let (user, password) = (user.map(Into::into), password.map(Into::into));
        Url { shape: Shape::Single, servers, user, password, database }
    }

    fn many(shape: Shape, servers: &[(&str, u16)], password: Option<&str>, database: u8) -> Url {
        let servers =
            servers.iter().map(|(host, port)| Place::Tcp { host: (*host).to_owned(), port: *port, tls: false });
        Url { shape, servers: servers.collect(), ..url("", 0, None, password, database) }
    }

    fn socket(path: &str, user: Option<&str>, password: Option<&str>, database: u8) -> Url {
        Url { servers: vec![Place::Socket(path.into())], ..url("", 0, user, password, database) }
    }

    #[test]
    fn a_url_is_read_like_this() {
        let table = [
            ("redis://127.0.0.1", url("127.0.0.1", 6379, None, None, 0)),
            ("redis://localhost:7000/", url("localhost", 7000, None, None, 0)),
            ("valkey://a-b.c_d:1/15", url("a-b.c_d", 1, None, None, 15)),
            ("redis://:secret@h", url("h", 6379, None, Some("secret"), 0)),
            ("redis://me:p%40ss%2Fw%25+o@h:1/2", url("h", 1, Some("me"), Some("p@ss/w%+o"), 2)),
            ("redis://me:a@b@h", url("h", 6379, Some("me"), Some("a@b"), 0)),
            ("redis://me:a:b@h", url("h", 6379, Some("me"), Some("a:b"), 0)),
            ("redis://[::1]", url("[::1]", 6379, None, None, 0)),
            ("redis://me:pw@[fe80::1]:7000/3", url("[fe80::1]", 7000, Some("me"), Some("pw"), 3)),
            ("redis+unix:///run/redis.sock", socket("/run/redis.sock", None, None, 0)),
            ("unix:///s", socket("/s", None, None, 0)),
            ("valkey+unix://localhost/s", socket("/s", None, None, 0)),
            ("redis+unix:///a%20b/c@d:e.sock?", socket("/a b/c@d:e.sock", None, None, 0)),
            ("redis+unix://me:p%40ss@/s?db=3", socket("/s", Some("me"), Some("p@ss"), 3)),
            ("redis+unix://:pw@localhost/s", socket("/s", None, Some("pw"), 0)),
            ("redis+unix:///s?db=2&pass=p%26w&user=me", socket("/s", Some("me"), Some("p&w"), 2)),
            (
                "redis-cluster://:pw@a,b:7,[::1]:8",
                many(Shape::Cluster, &[("a", 6379), ("b", 7), ("[::1]", 8)], Some("pw"), 0),
            ),
            ("valkey-cluster://a/0", many(Shape::Cluster, &[("a", 6379)], None, 0)),
            ("redis-sentinel://a,b:7/my", many(Shape::Sentinel("my".into()), &[("a", 26_379), ("b", 7)], None, 0)),
            ("redis-sentinel://:pw@a/a%2Fb/3", many(Shape::Sentinel("a/b".into()), &[("a", 26_379)], Some("pw"), 3)),
        ];
        for (text, wanted) in table {
            assert!(Url::parse(text).unwrap() == wanted, "{text} is read as {:?}", Url::parse(text));
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_to_write_and_without_the_password() {
        let table = [
            ("redis-cluster://:hunter2@", "names no host"),
            ("redis-cluster://:hunter2@a,,b", "names no host"),
            ("redis-cluster://:hunter2@h/1", "no databases"),
            ("redis+cluster://:hunter2@h", "redis-cluster://"),
            ("redis-sentinel://:hunter2@h", "name of their primary"),
            ("redis-sentinel://:hunter2@h/", "name of their primary"),
            ("redis-sentinel://:hunter2@h/my/x", "database"),
            ("sentinel://:hunter2@h", "redis-sentinel://"),
            ("redis+unix://:hunter2@/", "whole path"),
            ("redis+unix://hunter2", "whole path"),
            ("redis+unix://hunter2/s", "whole path"),
            ("redis+unix:///s#hunter2", "whole path"),
            ("redis+unix://hunter2@/s", "a user without a password"),
            ("redis+unix:///s?db=hunter2", "database"),
            ("redis+unix:///s?password=hunter2", "after its"),
            ("redis+unix:///s%hunter2", "two hex digits"),
            ("rediss+unix://:hunter2@/tmp/s", "begins otherwise"),
            ("http://:hunter2@h", "scheme"),
            ("redis+tls://:hunter2@h", "rediss://"),
            ("redis+ssl://:hunter2@h", "rediss://"),
            ("REDIS://:hunter2@h", "scheme"),
            ("h:6379", "begins with \"redis://\""),
            ("hunter2", "begins with \"redis://\""),
            ("", "begins with \"redis://\""),
            ("redis://", "names no host"),
            ("redis://:hunter2@", "names no host"),
            ("redis://:hunter2@:6379", "names no host"),
            ("redis://hunter2@h", "a user without a password"),
            ("redis://:hunter2@h1:1,h2:2", "several hosts"),
            ("redis://:hunter2@h h", "host"),
            ("redis://:hunter2@::1", "host"),
            ("redis://:hunter2@[::g]", "host"),
            ("redis://:hunter2@h:0", "port"),
            ("redis://:hunter2@h:65536", "port"),
            ("redis://:hunter2@h:", "port"),
            ("redis://:hunter2@h/256", "database"),
            ("redis://:hunter2@h/-1", "database"),
            ("redis://:hunter2@h/+1", "database"),
            ("redis://:hunter2@h/one", "database"),
            ("redis://:hunter2@h/1/2", "database"),
            ("redis://:hunter2@h?db=2", "\"?\""),
            ("redis://:hunter2@h#insecure", "\"#\""),
            ("redis://:hunter2%@h", "hex digits"),
            ("redis://:hunter2%+1@h", "hex digits"),
            ("redis://:hunter2%ff@h", "UTF-8"),
        ];
        for (text, problem) in table {
            let error = Url::parse(text).unwrap_err();
            assert!(error.is_config() && error.to_string().contains(problem), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_url_s_debug_form_has_no_password() {
        let table = [
            ("redis://me:hunter2@h/1", "redis://h:6379/1"),
            ("redis+unix:///s?pass=hunter2", "redis+unix:///s?db=0"),
            ("redis-cluster://:hunter2@h,i", "redis-cluster://h:6379,i:6379"),
            ("redis-sentinel://:hunter2@h/my/1", "redis-sentinel://h:26379/my/1"),
        ];
        for (text, wanted) in table {
            assert_eq!(format!("{:?}", Url::parse(text).unwrap()), wanted);
        }
    }
}
