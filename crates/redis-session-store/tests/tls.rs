//! TLS to a real Redis: the contract by it, and every certificate that must not be accepted.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis_session_core::{
    Create, Created, Error, Fields, Life, Random, Read, ReplicaRead, SessionId, SessionKey, Store, Time, Token,
    WishChange,
};
use redis_session_store::fred::types::config::{HostMapping, TlsConfig, TlsHostMapping};
use redis_session_store::{RedisStore, RedisStoreOptions, Tls, fred};
use redis_session_testkit::{Authority, Cluster, Identity, RedisOptions, RedisServer, Sentinels, store_contract};

const HERE: &str = "127.0.0.1";

/// A Redis with this certificate.
fn redis(server: &Identity, clients: &Authority) -> RedisServer {
    RedisServer::options().tls(server, clients).start()
}

/// So that a busy machine does not decide.
fn patient(url: &str, tls: Tls) -> RedisStoreOptions {
    RedisStore::options(url).tls(tls).deadline(Duration::from_secs(10)).connect_deadline(Duration::from_secs(10))
}

/// Tries to connect, and says why it cannot be.
async fn refused(url: &str, tls: Tls) -> Error {
    let start = Instant::now();
    let error = patient(url, tls).connect().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5), "{error:?}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn r78_the_store_keeps_its_contract_by_tls_under_a_private_authority() {
    let authority = Authority::new();
    let redis = redis(&authority.server(HERE), &authority);
    let store = patient(&redis.tls_url(), Tls::default().ca(authority.pem())).connect().await.unwrap();
    store_contract(store, tokio::time::sleep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r78_the_store_keeps_its_contract_by_tls_with_certificates_on_both_sides() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let redis = RedisServer::options().tls(&authority.server(HERE), &clients).only_clients_with_certificates().start();
    let trusted = || Tls::default().ca(authority.pem());
    let (ours, theirs) = (clients.client("shop"), Authority::new().client("shop"));

    let store =
        patient(&redis.tls_url(), trusted().identity(ours.certificate.clone(), ours.key.clone())).connect().await;
    store_contract(store.unwrap(), tokio::time::sleep).await;

    let error = refused(&redis.tls_url(), trusted()).await;
    assert!(error.is_config() && error.to_string().contains("asks for a certificate of ours"), "{error:?}");
    let error = refused(&redis.tls_url(), trusted().identity(theirs.certificate, theirs.key.clone())).await;
    assert!(error.is_config() && error.to_string().contains("does not accept our side of TLS"), "{error:?}");
    let error = refused(&redis.tls_url(), trusted().identity(ours.certificate, theirs.key)).await;
    assert!(error.is_config() && error.to_string().contains("do not fit together"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r78_a_certificate_that_does_not_prove_who_redis_is_is_refused_and_the_error_says_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let trusted = Tls::default().ca(authority.pem());
    let table = [
        ("another name", authority.server("redis.internal"), trusted.clone(), "for another name"),
        ("expired", authority.expired_server(HERE), trusted.clone(), "has expired"),
        ("another authority", other.server(HERE), trusted.clone(), "an authority that is not trusted"),
        ("self-signed", Identity::self_signed_server(HERE), trusted.clone(), "an authority that is not trusted"),
        ("a client's", authority.client(HERE), trusted, "not valid"),
        ("the system's authorities", authority.server(HERE), Tls::default(), "an authority that is not trusted"),
    ];
    for (what, server, tls, wanted) in table {
        let redis = redis(&server, &authority);
        let error = refused(&redis.tls_url(), tls.clone()).await;
        let place = format!("Redis at {HERE}:{} shows a certificate", redis.tls_port());
        assert!(error.is_config() && error.to_string().starts_with(&place), "{what}: {error:?}");
        assert!(error.to_string().contains(wanted), "{what}: {error}");
        // Nor is it spoken to by who starts without it.
        let later = patient(&redis.tls_url(), tls).deadline(Duration::from_millis(200)).start_without_redis();
        assert!(later.connect().await.unwrap().ping().await.is_err(), "{what}");
        assert_eq!(redis.command_count("CLIENT|ID") + redis.command_count("HELLO"), 0, "{what}: nothing was sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r78_a_server_reached_by_another_name_than_its_own_is_checked_for_its_own() {
    let authority = Authority::new();
    let redis = redis(&authority.server("redis.internal"), &authority);
    let named = |name: &str| Tls::default().ca(authority.pem()).server_name(name);
    patient(&redis.tls_url(), named("redis.internal")).connect().await.unwrap().ping().await.unwrap();
    let error = refused(&redis.tls_url(), named("redis.other")).await;
    assert!(error.to_string().contains("for another name"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_several_authorities_do_as_well() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis =
        RedisServer::options().tls(&authority.server(HERE), &authority).only_clients_with_certificates().start();
    let dir = std::env::temp_dir().join(format!("redis-session-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let ours = authority.client("shop");
    let files = [("ca", authority.pem()), ("crt", ours.certificate), ("key", ours.key)];
    let [ca, certificate, key] = files.map(|(name, text)| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    });
    let tls = Tls::default().ca(other.pem()).ca_file(ca).identity_files(certificate, key);
    let store = patient(&redis.tls_url(), tls).connect().await;
    std::fs::remove_dir_all(&dir).unwrap();
    store.unwrap().ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_where_there_is_none_and_none_where_there_is_are_errors_at_start() {
    let authority = Authority::new();
    let redis = redis(&authority.server(HERE), &authority);
    let to_plain = format!("rediss://{HERE}:{}", redis.port());
    let quick = |url: &str| RedisStore::options(url).connect();
    let error = quick(&to_plain).await.unwrap_err();
    assert!(error.to_string().contains(&redis.port().to_string()), "{error:?}");
    let error = quick(&format!("redis://{HERE}:{}", redis.tls_port())).await.unwrap_err();
    assert!(error.to_string().contains(&redis.tls_port().to_string()), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_tls_to_a_server_of_another_kind_is_told_to_go_on_doing_so() {
    let authority = Authority::new();
    let redis = redis(&authority.server(HERE), &authority);
    let at = format!("{HERE}:{}", redis.tls_port());
    for (url, wanted) in [
        (format!("rediss-cluster://{at}"), format!("write rediss://{at}")),
        (format!("rediss-sentinel://{at}/mymaster"), "write rediss://host".to_owned()),
    ] {
        let options = patient(&url, Tls::default().ca(authority.pem())).connect_deadline(Duration::from_secs(1));
        let error = options.connect().await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains(&wanted), "{error:?}");
    }
}

/// A pool of the application's that trusts this authority, and is not even connected.
fn pool(url: &str, authority: &Authority, hostnames: TlsHostMapping) -> fred::clients::Pool {
    use fred::rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = fred::rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(fred::rustls::crypto::ring::default_provider());
    let client =
        fred::rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = fred::types::config::Config::from_url(url).unwrap();
    let tls = TlsConfig::from(client.with_root_certificates(roots).with_no_client_auth());
    config.tls = Some(TlsConfig { hostnames, ..tls });
    fred::types::Builder::from_config(config).build_pool(1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_with_tls_gives_it_to_the_store_and_counts_as_guarded() {
    let authority = Authority::new();
    let redis = redis(&authority.server(HERE), &authority);
    let pool = pool(&format!("redis://{HERE}:{}", redis.tls_port()), &authority, TlsHostMapping::None);
    RedisStore::pool_options(&pool).refuse_plain_tcp().connect().await.unwrap().ping().await.unwrap();
}

/// The name of any address.
#[derive(Debug)]
struct Named(&'static str);

impl HostMapping for Named {
    fn map(&self, _: &IpAddr, _: &str) -> Option<String> {
        Some(self.0.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r78_a_pool_s_names_for_the_addresses_of_a_cluster_are_kept() {
    let authority = Authority::new();
    let cluster = Cluster::options()
        .primaries(2)
        .replicas(0)
        .start_with(|options| options.tls(&authority.server("localhost"), &authority));
    let custom = |name| TlsHostMapping::Custom(Arc::new(Named(name)));
    let connect = async |host: &str, hostnames, deadline| {
        let url = format!("redis-cluster://{host}:{}", cluster.nodes()[0].tls_port());
        let options = RedisStore::pool_options(&pool(&url, &authority, hostnames)).refuse_plain_tcp();
        options.deadline(Duration::from_secs(10)).connect_deadline(deadline).connect().await
    };
    for (host, hostnames) in
        [("localhost", TlsHostMapping::DefaultHost), ("localhost", custom("localhost")), (HERE, custom("localhost"))]
    {
        serves(&connect(host, hostnames, Duration::from_secs(10)).await.unwrap()).await;
    }
    for (host, hostnames) in [("localhost", TlsHostMapping::None), ("localhost", custom("elsewhere"))] {
        let error = connect(host, hostnames, Duration::from_secs(1)).await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("for another name"), "{error:?}");
    }
}

/// Writes and reads sessions: enough for some to be on each server. Answers with how replicas are to read them.
async fn serves(store: &RedisStore) -> Vec<(SessionKey, ReplicaRead)> {
    let mut reads = Vec::new();
    for _ in 0..30 {
        let id = SessionId::random(&Random::system()).unwrap();
        let (key, token) = (id.key(&"main".into()), Token::random(&Random::system()).unwrap());
        let (life, wish) = (Life { idle: 600_000, absolute: 3_600_000, touch: 60_000 }, WishChange::default());
        let (not_after, proof, fields) = (Time::MAX, id.proof(), Fields::from_pairs(Vec::new()));
        let create = Create { token, not_after, proof, life, wish, login: None, fields };
        assert!(matches!(store.create(&key, &create).await.unwrap(), Created::Created { .. }));
        assert!(store.load(&key).await.unwrap().is_some());
        reads.push((key, ReplicaRead { proof, life, behind: Duration::from_secs(2) }));
    }
    reads
}

/// The same, read also by replicas, as soon as these are known.
async fn replicas_serve(store: &RedisStore) {
    let replicas = store.replicas().expect("it knows its replicas");
    for (key, read) in serves(store).await {
        let start = Instant::now();
        while !matches!(replicas.read(&key, &read).await.unwrap(), Read::Replica(_)) {
            assert!(start.elapsed() < Duration::from_secs(30), "no replica answers");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Servers that let in nobody without a certificate, each other included.
fn strict(server: &Identity, authority: &Authority) -> impl Fn(RedisOptions) -> RedisOptions {
    move |options| options.tls(server, authority).only_clients_with_certificates()
}

#[tokio::test(flavor = "multi_thread")]
async fn r78_the_store_keeps_its_contract_on_a_cluster_that_speaks_tls_also_after_a_failover() {
    let authority = Authority::new();
    let cluster = Cluster::options().start_with(strict(&authority.server(HERE), &authority));
    let ours = authority.client("shop");
    let tls = Tls::default().ca(authority.pem()).identity(ours.certificate, ours.key);
    let store = patient(&cluster.tls_url(), tls).refuse_plain_tcp().connect().await.unwrap();
    store_contract(store.clone(), tokio::time::sleep).await;
    replicas_serve(&store).await;
    cluster.failover("any key");
    replicas_serve(&store).await;

    let error = refused(&cluster.tls_url(), Tls::default().ca(authority.pem())).await;
    assert!(error.is_config() && error.to_string().contains("asks for a certificate of ours"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r78_the_store_keeps_its_contract_behind_sentinels_that_speak_tls_also_after_a_failover() {
    let authority = Authority::new();
    let redis = Sentinels::options().start_with(strict(&authority.server(HERE), &authority));
    let ours = authority.client("shop");
    let tls = Tls::default().ca(authority.pem()).identity(ours.certificate, ours.key);
    let store = patient(&redis.tls_url(), tls).refuse_plain_tcp().connect().await.unwrap();
    store_contract(store.clone(), tokio::time::sleep).await;
    replicas_serve(&store).await;
    redis.failover();
    replicas_serve(&store).await;

    let error = refused(&redis.tls_url(), Tls::default().ca(authority.pem())).await;
    assert!(error.is_config() && error.to_string().contains("asks for a certificate of ours"), "{error:?}");
}

/// Servers announce addresses, and their certificates are for names.
#[tokio::test(flavor = "multi_thread")]
async fn r78_servers_that_others_name_are_checked_for_the_name_by_which_they_are_reached() {
    let authority = Authority::new();
    let server = authority.server("localhost");
    let cluster = Cluster::options().primaries(2).replicas(0).start_with(strict(&server, &authority));
    let sentinels = Sentinels::options().replicas(1).sentinels(1).start_with(strict(&server, &authority));
    let ours = authority.client("shop");
    let trusted = || Tls::default().ca(authority.pem()).identity(ours.certificate.clone(), ours.key.clone());
    for by_address in [cluster.tls_url(), sentinels.tls_url()] {
        let error = refused(&by_address, trusted()).await;
        assert!(error.is_config() && error.to_string().contains("for another name"), "{error:?}");
        // The same for all of them.
        let named = patient(&by_address, trusted().server_name("localhost")).connect().await.unwrap();
        serves(&named).await;

        let by_name = by_address.replace(HERE, "localhost");
        let impatient = patient(&by_name, trusted()).connect_deadline(Duration::from_secs(1));
        let error = impatient.connect().await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("for another name"), "{error:?}");
        let mapped = patient(&by_name, trusted()).map_address(|_, port| ("localhost".to_owned(), port));
        serves(&mapped.connect().await.unwrap()).await;
    }

    for node in cluster.nodes() {
        node.run(&["CONFIG", "SET", "cluster-announce-hostname", "localhost"]);
        node.run(&["CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname"]);
    }
    let begun = Instant::now();
    while cluster.nodes().iter().any(|node| node.run(&["CLUSTER", "NODES"]).text().matches(",localhost").count() < 2) {
        assert!(begun.elapsed() < Duration::from_secs(10), "the nodes do not get to know each other's names");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let store = patient(&cluster.tls_url().replace(HERE, "localhost"), trusted()).connect().await.unwrap();
    serves(&store).await;
}
