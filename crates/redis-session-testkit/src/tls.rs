//! An authority of a test's own, and certificates by it for a redis-server and its clients: good ones and bad ones.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// Signs certificates for as long as a test runs.
///
/// ```
/// use redis_session_testkit::{Authority, RedisServer};
///
/// let authority = Authority::new();
/// let redis = RedisServer::options().tls(&authority.server("127.0.0.1"), &authority).start();
/// assert!(redis.tls_url().starts_with("rediss://127.0.0.1:"));
/// assert!(authority.pem().starts_with("-----BEGIN CERTIFICATE-----"));
/// ```
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// An authority that nobody knows yet.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, key()).unwrap_or_else(cannot))
    }

    /// Its certificate, for who is to trust it.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for the server of this name or address, with which it also comes to other servers.
    #[must_use]
    pub fn server(&self, name: &str) -> Identity {
        let mut params = params(name, ExtendedKeyUsagePurpose::ServerAuth);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        self.sign(params)
    }

    /// The same, whose time was over long ago.
    #[must_use]
    pub fn expired_server(&self, name: &str) -> Identity {
        let mut params = params(name, ExtendedKeyUsagePurpose::ServerAuth);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 1);
        self.sign(params)
    }

    /// A certificate for a client of this name.
    #[must_use]
    pub fn client(&self, name: &str) -> Identity {
        self.sign(params(name, ExtendedKeyUsagePurpose::ClientAuth))
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.0).unwrap_or_else(cannot);
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// A certificate for a server that no authority has signed but its own key.
    #[must_use]
    pub fn self_signed_server(name: &str) -> Self {
        let key = key();
        let params = params(name, ExtendedKeyUsagePurpose::ServerAuth);
        let certificate = params.self_signed(&key).unwrap_or_else(cannot);
        Self { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn params(name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap_or_else(cannot);
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    params
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap_or_else(cannot)
}

fn cannot<T>(error: rcgen::Error) -> T {
    panic!("a certificate cannot be made: {error}")
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}
