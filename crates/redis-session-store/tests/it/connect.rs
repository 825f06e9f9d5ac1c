//! Connecting: what is wrong is said at once, and everything closes with the last handle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis_session_core::{Error, Replication, Store};
use redis_session_store::RedisStore;
use redis_session_store::fred::clients::Pool;
use redis_session_store::fred::types::Builder;
use redis_session_store::fred::types::config::{Config, ServerConfig};
use redis_session_testkit::{Cluster, RedisOptions, RedisServer, Sentinels, store_contract};

use crate::{Visitor, patient, until};

async fn fails(url: &str) -> Error {
    let start = Instant::now();
    let error = RedisStore::connect(url).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_millis(1500), "{url}: {:?}", start.elapsed());
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_at_once_and_names_the_server() {
    let redis = RedisServer::start();
    redis.run(&["CONFIG", "SET", "requirepass", "open sesame"]);
    let (port, at) = (redis.port(), format!("127.0.0.1:{}", redis.port()));
    let table = [
        (format!("redis://{at}"), true, "asks for a password"),
        (format!("redis://:hunter2@{at}"), true, "refused the user or the password"),
        (format!("redis://nobody:hunter2@{at}"), true, "refused the user or the password"),
        (format!("redis://:open%20sesame@{at}/99"), true, "has no database"),
        (format!("redis://:hunter2@127.0.0.1:{}", 1), false, "cannot be reached"),
        ("redis://nobody.invalid".to_owned(), false, "cannot be reached"),
        ("redis+unix:///nowhere/redis.sock".to_owned(), false, "at /nowhere/redis.sock cannot be reached"),
    ];
    for (url, config, problem) in table {
        let error = fails(&url).await;
        assert_eq!((error.is_config(), error.is_unavailable()), (config, !config), "{url}: {error:?}");
        assert!(error.to_string().contains(problem), "{url}: {error}");
    }
    assert!(fails(&format!("redis://127.0.0.1:{port}")).await.to_string().contains(&at));
    let store = RedisStore::connect(&format!("redis://:open%20sesame@{at}")).await.unwrap();
    store.ping().await.unwrap();

    let strict = RedisServer::options().user("shop", "hunter2", "~* &* +@all -time").start();
    let error = fails(&strict.url_of("shop", "hunter2")).await;
    assert!(error.is_config() && error.to_string().ends_with("its user needs +time"), "{error}");
}

#[cfg(not(feature = "tls"))]
#[tokio::test(flavor = "multi_thread")]
async fn r78_a_url_of_tls_is_refused_by_a_build_without_it() {
    for url in ["rediss://:hunter2@h", "valkeys://:hunter2@h"] {
        let error = fails(url).await;
        assert!(error.is_config() && error.to_string().contains("this build has no TLS"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r78_plain_tcp_to_another_machine_is_refused_where_asked() {
    let guarded = |url: &str| RedisStore::options(url).refuse_plain_tcp().start_without_redis().connect();
    let routable =
        ["10.0.0.5", "redis.internal", "[2001:db8::1]", "localhost.example.org", "0.0.0.0", "127.0.0.1.example.org"];
    for host in routable {
        let error = guarded(&format!("redis://:hunter2@{host}:1")).await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("in clear"), "{host}: {error}");
        assert!(error.to_string().contains(host) && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    for host in ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "[::1]"] {
        guarded(&format!("redis://:hunter2@{host}:1")).await.unwrap();
    }
    guarded("redis+unix:///nowhere/redis.sock").await.unwrap();
    let config = Config::from_url("redis://10.0.0.5").unwrap();
    let pool = Builder::from_config(config).build_pool(1).unwrap();
    assert!(RedisStore::pool_options(&pool).refuse_plain_tcp().connect().await.unwrap_err().is_config());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_its_contract_on_a_unix_socket() {
    let redis = RedisServer::options().unix_socket().start();
    store_contract(patient(&redis.unix_url()).await, tokio::time::sleep).await;
    let store = patient(&redis.unix_url()).await;
    let clients = redis.run(&["CLIENT", "LIST"]).text();
    // Its own connection is the one that is not the test's.
    assert!(clients.lines().any(|line| line.contains("redis.sock")), "{clients}");
    assert!(store.ping().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_takes_a_user_a_password_and_a_database() {
    let all = "~* &* +@all";
    let redis = RedisServer::options().unix_socket().user("shop", "p@ss", all).start();
    let rest = redis.unix_url().replacen("redis+unix://", "", 1);
    let visitor = Visitor::new();
    let by_query = patient(&format!("redis+unix://{rest}?db=3&user=shop&pass=p%40ss")).await;
    visitor.born(&by_query, &[]).await;
    let by_place = patient(&format!("unix://shop:p%40ss@{rest}?db=3")).await;
    let options = || RedisStore::options(&redis.unix_url()).deadline(Duration::from_secs(10));
    let by_builder = options().user("shop").password("p@ss").database(3).connect().await.unwrap();
    for store in [by_place, by_builder] {
        assert!(store.load(&visitor.key).await.unwrap().is_some());
    }
    let users = redis.run(&["CLIENT", "LIST"]).text();
    assert!(users.contains("user=shop"), "{users}");
    let error = options().user("shop").password("hunter2").connect().await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("refused the user or the password"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_on_a_unix_socket_gives_it_and_is_called_as_it_is() {
    let redis = RedisServer::options().unix_socket().start();
    let path = redis.unix_url().replacen("redis+unix://", "", 1);
    let store = RedisStore::from_pool(&pool_without_password(ServerConfig::new_unix_socket(&path))).await.unwrap();
    assert_eq!(store.servers()[0].server, path);
    assert!(format!("{store:?}").contains(&format!("\"{path}\"")), "{store:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_comes_back_with_its_server() {
    let redis = RedisServer::options().unix_socket().start();
    let store = RedisStore::connect(&redis.unix_url()).await.unwrap();
    redis.kill();
    until("the loss", async || store.ping().await.is_err()).await;
    redis.restart();
    until("the recovery", async || store.ping().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_silent_from_the_start_is_given_up_at_the_connect_deadline() {
    let redis = RedisServer::start();
    redis.pause();
    let error = fails(&redis.url()).await;
    assert!(error.is_unavailable() && error.to_string().contains("did not answer within 1s"), "{error}");
    redis.resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_work_are_refused() {
    let options = || RedisStore::options("redis://127.0.0.1:1").start_without_redis();
    for wrong in [
        options().clients(0),
        options().clients(3),
        options().deadline(Duration::ZERO),
        options().deadline(Duration::from_secs(31)),
        options().connect_deadline(Duration::MAX),
    ] {
        let error = wrong.connect().await.unwrap_err();
        assert!(error.is_config(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_may_start_without_redis_and_finds_it_later() {
    let redis = RedisServer::start();
    redis.kill();
    let start = Instant::now();
    let store = RedisStore::options(&redis.url()).clients(2).start_without_redis().connect().await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(50));
    assert_eq!(store.now(), None);
    let visitor = Visitor::new();
    assert!(store.load(&visitor.key).await.unwrap_err().is_unavailable());
    redis.restart();
    until("the connection", async || store.load(&visitor.key).await.is_ok()).await;
    assert!(store.now().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_that_of_redis() {
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    let shown = store.now().unwrap().as_millis();
    let time = redis.run(&["TIME"]).texts();
    let of_redis: u64 = time[0].parse::<u64>().unwrap() * 1000 + time[1].parse::<u64>().unwrap() / 1000;
    assert!(shown.abs_diff(of_redis) < 50, "{shown} {of_redis}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_close_with_the_last_clone() {
    let redis = RedisServer::start();
    let connections = || redis.run(&["CLIENT", "LIST"]).text().lines().count();
    let alone = connections();
    let store = RedisStore::options(&redis.url()).clients(2).connect().await.unwrap();
    until("two connections", async || connections() == alone + 2).await;
    let clone = store.clone();
    drop(store);
    clone.ping().await.unwrap();
    drop(clone);
    until("the end of both", async || connections() == alone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_gives_its_settings_and_is_left_alone() {
    let redis = RedisServer::start();
    redis.run(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let url = format!("redis://:hunter2@127.0.0.1:{}/3", redis.port());
    let config = Config::from_url(&url).unwrap();
    // Not even connected.
    let pool = Builder::from_config(config).build_pool(4).unwrap();
    let store = RedisStore::from_pool(&pool).await.unwrap();
    let visitor = Visitor::new();
    visitor.born(&store, &[]).await;
    redis.run(&["SELECT", "3"]);
    assert_eq!(redis.run(&["EXISTS", &visitor.name()]).int(), 1);
    let debug = format!("{store:?} {:?}", RedisStore::pool_options(&pool));
    assert!(debug.contains(&redis.port().to_string()) && !debug.contains("hunter2"), "{debug}");
}

/// Of servers with the password `hunter2`, not even connected.
fn pool(server: ServerConfig) -> Pool {
    let config = Config { server, password: Some("hunter2".to_owned()), ..Config::default() };
    Builder::from_config(config).build_pool(2).unwrap()
}

fn pool_without_password(server: ServerConfig) -> Pool {
    Builder::from_config(Config { server, ..Config::default() }).build_pool(1).unwrap()
}

fn hosts(servers: &[RedisServer]) -> Vec<(String, u16)> {
    servers.iter().map(|server| ("127.0.0.1".to_owned(), server.port())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_the_contract_by_a_pool_of_a_cluster_or_of_sentinels_with_passwords() {
    let cluster = Cluster::options().replicas(0).start_with(|options| options.password("hunter2"));
    let to_cluster = ServerConfig::new_clustered(hosts(&cluster.nodes()[..1]));
    let sentinels = Sentinels::options().sentinel_password("hunter3").start_with(|options| options.password("hunter2"));
    let to_sentinels = |password: &str| {
        let mut server = ServerConfig::new_sentinel(hosts(sentinels.sentinels()), sentinels.name());
        let ServerConfig::Sentinel { password: of_sentinels, .. } = &mut server else { unreachable!("just made") };
        *of_sentinels = Some(password.to_owned());
        pool(server)
    };
    for (pool, place) in [(pool(to_cluster), "cluster of 127.0.0.1"), (to_sentinels("hunter3"), sentinels.name())] {
        let patience = Duration::from_secs(10);
        let options = RedisStore::pool_options(&pool).deadline(patience).connect_deadline(patience);
        let store = options.clone().connect().await.unwrap();
        let debug = format!("{options:?} {store:?}");
        assert!(debug.contains(place) && !debug.contains("hunter"), "{debug}");
        store_contract(store, tokio::time::sleep).await;
    }
    let error = RedisStore::from_pool(&to_sentinels("hunter2")).await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("password"), "{error}");
    assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_names_no_server_is_refused_with_what_to_write() {
    let none = Vec::<(String, u16)>::new;
    for server in [ServerConfig::new_clustered(none()), ServerConfig::new_sentinel(none(), "mymaster")] {
        let error = RedisStore::from_pool(&pool(server)).await.unwrap_err();
        assert!(error.is_config(), "{error:?}");
        assert_eq!(error.to_string(), "no server of the cluster and no Sentinel is named: name one or more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_one_to_each_server_two_to_each_sentinel_one_for_ends_and_up_to_16_that_wait() {
    let user = |options: RedisOptions| options.user("shop", "password", "~* &* +@all");
    let (single, cluster, sentinels) = (
        user(RedisServer::options()).start(),
        Cluster::options().start_with(user),
        Sentinels::options().start_with(user),
    );
    for sentinel in sentinels.sentinels() {
        sentinel.run(&["ACL", "SETUSER", "shop", "on", ">password", "allcommands", "allchannels"]);
    }
    // A cluster tells of a replica once it has got something.
    for _ in 0..30 {
        let name = Visitor::new().name();
        cluster.run_at(&name, &["SET", &name, "1"]);
    }
    let tells_of_all =
        |node: &RedisServer| node.run(&["CLUSTER", "SLOTS"]).list().iter().all(|slots| slots.list().len() == 4);
    until("the replicas", async || cluster.nodes().iter().all(tells_of_all)).await;
    let is_of_the_shop = |line: &&str| line.contains(" user=shop ");
    let to = |server: &RedisServer| server.run(&["CLIENT", "LIST"]).text().lines().filter(is_of_the_shop).count();
    let to_each = |servers: &[RedisServer]| servers.iter().map(to).collect::<Vec<_>>();
    let table = [
        (single.url_of("shop", "password"), std::slice::from_ref(&single), &[][..]),
        (cluster.url_of("shop", "password"), cluster.nodes(), &[]),
        (sentinels.url_of("shop", "password"), sentinels.servers(), sentinels.sentinels()),
    ];
    for (url, servers, of_sentinels) in table {
        let patience = Duration::from_secs(10);
        let options = RedisStore::options(&url).sentinel_user("shop").sentinel_password("password");
        let store = options.deadline(patience).connect_deadline(patience).connect().await.unwrap();
        let are = async |to_servers: usize| {
            let all = || to_each(servers).iter().sum::<usize>() == to_servers;
            until(&format!("{to_servers} connections of {url}"), async || all()).await;
            // None comes later.
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(all(), "{:?}", to_each(servers));
            assert_eq!(to_each(of_sentinels), vec![2; of_sentinels.len()], "{url}");
        };
        are(servers.len()).await;
        assert_eq!(to_each(servers), vec![1; servers.len()], "{url}");

        store.on_end(Arc::new(|_| {}));
        are(servers.len() + 1).await;

        // Forty times the same: on a cluster, others would go to other servers.
        let visitor = Visitor::new();
        let (create, nobody) = (visitor.create(&[]), Replication { replicas: 9, within: Duration::from_millis(200) });
        let creates = (0..40).map(|_| store.create_durably(&visitor.key, &create, nobody));
        let created = try_join_all(creates).await.unwrap();
        assert!(created.iter().all(|created| created.missed.is_some()), "{created:?}");
        are(servers.len() + 1 + 16).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_keep_applications_apart() {
    let redis = RedisServer::start();
    let shop = RedisStore::options(&redis.url()).prefix("shop:").connect().await.unwrap();
    let visitor = Visitor::new();
    visitor.born(&shop, &[]).await;
    assert_eq!(redis.run(&["KEYS", "*"]).texts(), [format!("shop:{}", visitor.key.to_text())]);
    let office = RedisStore::connect(&redis.url()).await.unwrap();
    assert_eq!(office.load(&visitor.key).await.unwrap(), None);
}
