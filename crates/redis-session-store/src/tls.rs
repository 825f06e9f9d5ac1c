//! TLS to Redis: which authorities are trusted, who we are to the server, and what is wrong with a certificate. Nothing
//! here turns a check off.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use fred::rustls::pki_types::pem::PemObject;
use fred::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use fred::rustls::{ClientConfig, RootCertStore, crypto::ring};
use fred::types::config::{Config, Server, ServerConfig, TlsConfig, TlsHostMapping};
use redis_session_core::{Error, Kind};
use tokio::task::spawn_blocking;

use crate::RedisStoreOptions;
use crate::url::without_brackets;

/// Whether this build speaks TLS.
pub(crate) const IS_BUILT_IN: bool = true;

/// Who is trusted where a URL begins with `rediss://`, and as whom we come. By default: the authorities of the system,
/// and without a certificate. Certificates are always checked: their authority, their time and their name.
///
/// ```no_run
/// use redis_session_store::{RedisStore, Tls};
///
/// # async fn connect() -> Result<(), redis_session_core::Error> {
/// let tls = Tls::default()
///     .ca_file("/etc/redis/ca.crt")
///     .identity_files("/etc/shop/redis.crt", "/etc/shop/redis.key");
/// let store = RedisStore::options("rediss://shop:password@redis.internal").tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "it is used by `RedisStoreOptions::tls` only"]
pub struct Tls {
    /// Empty: the authorities of the system.
    authorities: Vec<Pem>,
    /// A chain of certificates and its key. `None`: we have none.
    identity: Option<(Pem, Pem)>,
    /// `None`: the URL's host.
    server_name: Option<String>,
}

#[derive(Clone)]
enum Pem {
    Text(Vec<u8>),
    File(PathBuf),
}

impl Tls {
    /// Trusts the authorities whose certificates are in this PEM text, and no longer those of the system. Default: those
    /// of the system. Call it again for more.
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities.push(Pem::Text(pem.into()));
        self
    }

    /// As [`ca`](Self::ca), from a file, which is read when the store connects first.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities.push(Pem::File(path.into()));
        self
    }

    /// Shows a certificate to the server, for `tls-auth-clients`: PEM texts of the certificate (with those between it and
    /// its authority behind it) and of its key. Default: none.
    pub fn identity(self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { identity: Some((Pem::Text(certificate.into()), Pem::Text(key.into()))), ..self }
    }

    /// As [`identity`](Self::identity), from files, which are read when the store connects first: a new certificate
    /// takes a new start.
    pub fn identity_files(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { identity: Some((Pem::File(certificate.into()), Pem::File(key.into()))), ..self }
    }

    /// The name that the server's certificate must be for. Default: the host in the URL. For a server that is reached by
    /// another name than its own, as through a tunnel.
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { server_name: Some(name.into()), ..self }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    fn is_default(&self) -> bool {
        self.authorities.is_empty() && self.identity.is_none() && self.server_name.is_none()
    }

    /// Adds TLS to the settings of a client, if it is `wanted`.
    pub(crate) async fn secure(self, mut config: Config, wanted: bool) -> Result<Config, Error> {
        if !wanted && self.is_default() {
            return Ok(config);
        }
        if !wanted {
            return Err(wrong(
                "settings of TLS are given for a server that is not spoken to by TLS: write rediss://host",
            ));
        }
        if let ServerConfig::Centralized { server } = &mut config.server {
            let name = self.server_name.clone().unwrap_or_else(|| without_brackets(&server.host).to_owned());
            if ServerName::try_from(name.as_str()).is_err() {
                return Err(wrong("the name of the server is none that a certificate can be for"));
            }
            server.tls_server_name = Some(name.into());
        }
        // Reading files and the system's authorities takes some milliseconds.
        let client = spawn_blocking(|| self.client())
            .await
            .map_err(|error| caused("the certificates cannot be read", error))??;
        config.tls = Some(TlsConfig::from(client));
        Ok(config)
    }

    fn client(self) -> Result<ClientConfig, Error> {
        // By name: another crate may have another one built in, and then rustls would want to be told which.
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| caused("TLS cannot be set up", error))?
            .with_root_certificates(roots(self.authorities)?);
        let Some((certificate, key)) = self.identity else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(&certificate.read("our certificate for Redis")?, "our certificate for Redis")?;
        let key = PrivateKeyDer::from_pem_slice(&key.read("the key of our certificate for Redis")?)
            .map_err(|_| wrong("the key of our certificate for Redis is not a private key in PEM"))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| caused("our certificate for Redis and its key do not fit together", error))
    }
}

/// Says for which name a server's certificate must be: the `given` one, or what a pool's settings make of an address, or
/// its host.
pub(crate) fn name(server: &mut Server, given: Option<&str>, config: &Config) {
    let host = without_brackets(&server.host);
    let name = given.map(str::to_owned).or_else(|| mapped(host, config)).unwrap_or_else(|| host.to_owned());
    server.tls_server_name = Some(name.into());
}

/// What the settings of a pool make of an address. (Our own have none.)
fn mapped(host: &str, config: &Config) -> Option<String> {
    let (address, hosts) = (host.parse().ok()?, config.server.hosts());
    // fred takes the one that told of the address; which of ours that was is nobody's concern, as they are one cluster.
    let first = &hosts.first()?.host;
    match &config.tls.as_ref()?.hostnames {
        TlsHostMapping::None => None,
        TlsHostMapping::DefaultHost => Some(first.to_string()),
        TlsHostMapping::Custom(map) => map.map(&address, first),
    }
}

fn roots(authorities: Vec<Pem>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if authorities.is_empty() {
        // What cannot be read among many is somebody else's.
        let (added, _) = roots.add_parsable_certificates(fred::rustls_native_certs::load_native_certs().certs);
        return match added {
            0 => {
                Err(wrong("this system trusts no authority at all: install ca-certificates, or name one with Tls::ca"))
            }
            _ => Ok(roots),
        };
    }
    for pem in authorities {
        let what = "the authority for Redis";
        for certificate in certificates(&pem.read(what)?, what)? {
            roots
                .add(certificate)
                .map_err(|error| caused("the authority for Redis is not a usable certificate", error))?;
        }
    }
    Ok(roots)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(Error::new(Kind::Config, format!("{what} is not a certificate in PEM"))),
    }
}

impl Pem {
    fn read(self, what: &str) -> Result<Vec<u8>, Error> {
        match self {
            Self::Text(text) => Ok(text),
            Self::File(path) => std::fs::read(&path).map_err(|error| {
                Error::caused(Kind::Config, format!("{what} cannot be read from {}", path.display()), error)
            }),
        }
    }
}

fn wrong(message: &'static str) -> Error {
    Error::new(Kind::Config, message)
}

fn caused(message: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::caused(Kind::Config, message, error)
}

impl RedisStoreOptions {
    /// Whom to trust and who to be, where the URL begins with `rediss://`. Default: the authorities of the system, no
    /// certificate of our own, the URL's host as the server's name. Needs the feature `tls`.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }
}

/// What is wrong between us and a server, from the text of fred's error: it keeps nothing else of it.
pub(crate) fn what_is_wrong(details: &str) -> Option<&'static str> {
    const NOT_TRUSTED: &str =
        "shows a certificate of an authority that is not trusted here: name that one with Tls::ca";
    const TABLE: [(&str, &str); 11] = [
        ("UnknownIssuer", NOT_TRUSTED),
        // Of an authority that has the name of one that is.
        ("BadSignature", NOT_TRUSTED),
        (
            "CaUsedAsEndEntity",
            "shows the certificate of an authority as its own: make it one of its own, signed by that one",
        ),
        ("NotValidForName", "shows a certificate for another name: write that name in the URL, or in Tls::server_name"),
        ("NotValidYet", "shows a certificate whose time has not come yet: look at both clocks"),
        ("Expired", "shows a certificate that has expired"),
        ("CertificateRequired", "asks for a certificate of ours: give it one with Tls::identity"),
        ("AlertReceived(", "does not accept our side of TLS: look at the authority of Tls::identity, and at its log"),
        ("InvalidCertificate(", "shows a certificate that is not valid"),
        ("InvalidContentType", "does not speak TLS at this port: write redis:// or another port"),
        ("PeerIncompatible", "speaks no version of TLS that is safe: it must offer 1.2 or 1.3"),
    ];
    TABLE.iter().find(|(sign, _)| details.contains(sign)).map(|(_, text)| *text)
}

/// Without any certificate, and above all without the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.len())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(tls: Tls) -> String {
        let options =
            RedisStoreOptions::new(crate::url::Url::parse("rediss://127.0.0.1:1").map(crate::target::Way::of_url));
        let error = options.tls(tls).start_without_redis().connect().await.unwrap_err();
        assert!(error.is_config(), "{error:?}");
        error.to_string()
    }

    #[tokio::test]
    async fn what_is_no_certificate_or_no_key_is_refused_at_start() {
        let none = || Tls::default();
        let table = [
            (none().ca("hunter2"), "the authority for Redis is not a certificate in PEM"),
            (none().ca(""), "the authority for Redis is not a certificate in PEM"),
            (none().ca_file("/nowhere/ca.crt"), "the authority for Redis cannot be read from /nowhere/ca.crt"),
            (none().identity("hunter2", "hunter2"), "our certificate for Redis is not a certificate in PEM"),
            (
                none().identity_files("/nowhere/a", "/nowhere/b"),
                "our certificate for Redis cannot be read from /nowhere/a",
            ),
            (none().server_name("no name"), "the name of the server is none that a certificate can be for"),
        ];
        for (tls, wanted) in table {
            assert_eq!(refused(tls).await, wanted);
        }
        assert!(!format!("{:?}", none().identity("hunter2", "hunter2")).contains("hunter2"));
    }

    #[tokio::test]
    async fn settings_of_tls_do_not_make_a_plain_url_one_of_tls() {
        let options =
            crate::RedisStore::options("redis://127.0.0.1:1").tls(Tls::default().server_name("redis.internal"));
        let error = options.start_without_redis().connect().await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("write rediss://"), "{error}");
    }
}
