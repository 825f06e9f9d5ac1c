//! How the shop is set up, from environment variables, and what it tells whoever starts it.

use std::env;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::Uri;
use redis_session::{Cookie, CsrfLayer, KeyRing, RedisStore, RedisStoreOptions};

use crate::accounts::{self, Accounts};
use crate::watch::Instance;

/// | variable | what it is | without it |
/// | --- | --- | --- |
/// | `PORT` | where to listen; 0 takes any free one | 3000 |
/// | `BIND` | the address to listen on | 127.0.0.1 |
/// | `PUBLIC_URL` | what visitors' browsers open, where that is a proxy before the shop | the address to listen on |
/// | `REDIS_URL` | where sessions and accounts are kept | the memory of this process |
/// | `REDIS_USER`, `REDIS_PASSWORD` | who the shop is to Redis | what `REDIS_URL` says |
/// | `REDIS_SENTINEL_USER`, `REDIS_SENTINEL_PASSWORD` | who the shop is to Sentinels | nobody |
/// | `ACCOUNTS_URL` | one Redis for accounts, where sessions are in a cluster or behind Sentinels | `REDIS_URL` |
/// | `START_WITHOUT_REDIS` | any text: start, and be ready once Redis answers | end with an error while it is away |
/// | `SESSION_KEY` | what signs the cookies, the same for all instances: `openssl rand -base64 32` | a new random key |
/// | `INSTANCE` | a name to tell instances apart | the port |
///
/// Built with `--features tls`, it takes `rediss://` too, and trusts the authorities in the file that `SSL_CERT_FILE` names.
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    public_url: Option<String>,
    redis: Option<Redis>,
    has_key: bool,
    instance: Option<String>,
}

/// Where Redis is and who the shop is to it.
struct Redis {
    url: String,
    accounts_url: String,
    login: Login,
    sentinel_login: Login,
    start: Start,
}

/// A user and a password. `None`: what the URL says.
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

/// What is to be done while Redis is away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    WithRedis,
    Anyway,
}

impl Redis {
    /// `None`: no variable says where it is.
    fn from_env() -> Result<Option<Self>, Box<dyn Error>> {
        let Some(url) = variable("REDIS_URL") else { return Ok(None) };
        let is_single = !url.split("://").next().is_some_and(|scheme| scheme.contains('-'));
        let accounts_url = match variable("ACCOUNTS_URL") {
            Some(url) => url,
            None if is_single => url.clone(),
            None => {
                return Err("with sessions in a cluster or behind Sentinels, accounts need a Redis of their own: \
                            set ACCOUNTS_URL=redis://host:6379"
                    .into());
            }
        };
        let login =
            |of: &str| Login { user: variable(&format!("{of}_USER")), password: variable(&format!("{of}_PASSWORD")) };
        let start = if variable("START_WITHOUT_REDIS").is_some() { Start::Anyway } else { Start::WithRedis };
        let (login, sentinel_login) = (login("REDIS"), login("REDIS_SENTINEL"));
        Ok(Some(Self { url, accounts_url, login, sentinel_login, start }))
    }

    fn options(&self) -> RedisStoreOptions {
        let mut options = RedisStore::options(&self.url);
        if let Some(user) = &self.login.user {
            options = options.user(user);
        }
        if let Some(password) = &self.login.password {
            options = options.password(password);
        }
        if let Some(user) = &self.sentinel_login.user {
            options = options.sentinel_user(user);
        }
        if let Some(password) = &self.sentinel_login.password {
            options = options.sentinel_password(password);
        }
        match self.start {
            Start::WithRedis => options,
            Start::Anyway => options.start_without_redis(),
        }
    }

    /// As in its URL, without the password that this may hold.
    fn place(&self) -> &str {
        let place = self.url.split_once("://").map_or("", |(_, place)| place);
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        place.split('?').next().unwrap_or_default()
    }
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, Box<dyn Error>> {
        let bind: IpAddr = match variable("BIND") {
            Some(text) => text.parse().map_err(|_| format!("BIND must be an IP address, not {text:?}"))?,
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let port: u16 = match variable("PORT") {
            Some(text) => text.parse().map_err(|_| format!("PORT must be a number up to 65535, not {text:?}"))?,
            None => 3000,
        };
        Ok(Self {
            listen: (bind, port).into(),
            public_url: variable("PUBLIC_URL").map(|url| url.trim_end_matches('/').to_owned()),
            redis: Redis::from_env()?,
            has_key: variable("SESSION_KEY").is_some(),
            instance: variable("INSTANCE"),
        })
    }

    /// `None`: sessions are in the memory of this process.
    pub(crate) async fn redis(&self) -> Result<Option<RedisStore>, redis_session::Error> {
        match &self.redis {
            Some(redis) => Ok(Some(redis.options().connect().await?)),
            None => Ok(None),
        }
    }

    pub(crate) async fn accounts(&self) -> Result<Accounts, accounts::Failed> {
        match &self.redis {
            Some(redis) => Accounts::in_redis(&redis.accounts_url, &redis.login, redis.start).await,
            None => Accounts::in_memory().await,
        }
    }

    pub(crate) fn keys(&self) -> Result<KeyRing, redis_session::Error> {
        Ok(if self.has_key { KeyRing::from_env("SESSION_KEY")? } else { KeyRing::random()? })
    }

    /// The real cookie is Secure: it needs HTTPS. Only a browser on this very machine may get the one that does not.
    pub(crate) fn cookie(&self) -> Result<Cookie, Box<dyn Error>> {
        let Some(url) = &self.public_url else {
            let loopback = self.listen.ip().is_loopback();
            return Ok(if loopback { Cookie::insecure_for_development() } else { Cookie::default() });
        };
        let uri: Uri = url.parse().map_err(|_| format!("PUBLIC_URL is no URL: {url}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(_)) => Ok(Cookie::default()),
            (Some("http"), Some(host)) if is_loopback(host) => Ok(Cookie::insecure_for_development()),
            _ => Err("PUBLIC_URL must begin with https://, or be http://localhost: over plain HTTP from another \
                      machine, browsers do not keep the session's cookie"
                .into()),
        }
    }

    /// Forms come from what browsers open, also where a proxy tells us another host.
    pub(crate) fn csrf(&self) -> CsrfLayer {
        let layer = CsrfLayer::new();
        match &self.public_url {
            // No browser writes `http://[::1]:80`; then the host that requests are addressed to has to do.
            Some(url) => layer.origin(url).unwrap_or_default(),
            None => layer,
        }
    }

    pub(crate) fn instance(&self, listening: SocketAddr) -> Instance {
        let name = self.instance.clone().unwrap_or_else(|| format!("port {}", listening.port()));
        Instance { name, place: self.place() }
    }

    /// Where sessions are kept.
    fn place(&self) -> String {
        match &self.redis {
            Some(redis) => format!("Redis at {}", redis.place()),
            None => "the memory of this process".to_owned(),
        }
    }

    /// The first lines on the terminal. The address comes first and alone.
    pub(crate) fn greeting(&self, listening: SocketAddr) -> String {
        let place = self.place();
        let sessions = match (&self.redis, self.has_key) {
            (None, _) => format!(
                "Sessions are in {place}, and end with it; so do accounts.\n\
                 With REDIS_URL=redis://127.0.0.1 and one SESSION_KEY, several instances share them."
            ),
            (Some(_), true) => format!(
                "Sessions are in {place}.\n\
                 Instances with the same REDIS_URL and SESSION_KEY share them: PORT=3001, PORT=3002, and so on."
            ),
            (Some(_), false) => format!(
                "Sessions are in {place}, but there is no SESSION_KEY, so their cookies are signed with a random key:\n\
                 no other instance accepts them, nor this one after a restart. To share sessions, start all with\n    \
                 export SESSION_KEY=$(openssl rand -base64 32)"
            ),
        };
        let cookie = if self.public_url.is_none() && !self.listen.ip().is_loopback() {
            "\nThe cookie is Secure: browsers keep it over HTTPS, and most of them on http://localhost too.\n\
             Behind a proxy, say what browsers open: PUBLIC_URL=https://shop.example"
        } else {
            ""
        };
        format!("{}\n{sessions}{cookie}", self.address(listening))
    }

    fn address(&self, listening: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => url.clone(),
            None if listening.ip().is_unspecified() => format!("http://localhost:{}", listening.port()),
            None => format!("http://{listening}"),
        }
    }
}

/// Set and not empty: `docker-compose` sets variables that are not given to nothing.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

fn is_loopback(host: &str) -> bool {
    let ip: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    host == "localhost" || ip.is_some_and(|ip| ip.is_loopback())
}
