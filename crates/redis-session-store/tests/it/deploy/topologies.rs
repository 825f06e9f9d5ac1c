//! What `deploy/` starts beside a single Redis: replicas, Sentinels, a cluster, TLS.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis_session_core::{Saved, Store, Stored, Token};
use redis_session_store::{RedisStore, RedisStoreOptions};

use super::{Deployed, Dir, deploy};
use crate::{Visitor, set};

const PASSWORDS: [(&str, &str); 2] = [("REDIS_PASSWORD", "password"), ("REDIS_SERVERS_PASSWORD", "servers")];
const SERVERS: usize = 3;

fn as_replica_of(primary: &str) -> Vec<(&str, &str)> {
    PASSWORDS.into_iter().chain([("REPLICA_OF", primary)]).collect()
}

/// What a server answers to a user whose password is `password` or `servers`.
fn ask(port: u16, user: &str, command: &[&str]) -> String {
    let password = if user == "shop" { "password" } else { "servers" };
    let mut cli = Command::new("redis-cli");
    cli.env("REDISCLI_AUTH", password).args(["--user", user, "-p", &port.to_string()]).args(command);
    String::from_utf8(cli.output().unwrap().stdout).unwrap()
}

/// Servers that are to find each other first, on a machine that may be busy: an election of Sentinels that comes to nothing
/// is tried again after ten seconds.
async fn soon(what: &str, condition: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(180), "{what} does not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn shop(options: RedisStoreOptions) -> RedisStoreOptions {
    options.user("shop").password("password").deadline(Duration::from_secs(2))
}

async fn saves(store: &RedisStore, visitor: &Visitor, base: Token) -> bool {
    let saved = store.save(&visitor.key, &visitor.merge(base, set("a", "2"))).await;
    matches!(saved, Ok(Saved::Saved { .. }))
}

async fn is_there(store: &RedisStore, visitor: &Visitor) -> bool {
    matches!(store.load(&visitor.key).await, Ok(Some(Stored::Record(_))))
}

#[tokio::test(flavor = "multi_thread")]
async fn r81_a_deployed_replica_has_the_sessions_and_stays_what_it_was_made() {
    let dir = Dir::new();
    let primary = Deployed::start(&dir.0.join("1"), &["replicas"], &PASSWORDS);
    let store = primary.store("shop:password@").await;
    let place = format!("127.0.0.1 {}", primary.port);
    let (of_replica, variables) = (dir.0.join("2"), as_replica_of(&place));
    let replica = Deployed::start(&of_replica, &["replicas"], &variables);
    let copies = replica.store("shop:password@").await;
    let visitor = Visitor::new();
    let base = visitor.born(&store, &[("a", "1")]).await;
    soon("the copy", async || is_there(&copies, &visitor).await).await;
    assert!(!saves(&copies, &visitor, base).await, "it is a replica");

    drop(primary);
    for command in [&["replicaof", "no", "one"][..], &["config", "rewrite"]] {
        assert_eq!(ask(replica.port, "servers", command), "OK\n");
    }
    // While Redis writes its first file, it does not end when it is told to.
    let writes = || ask(replica.port, "shop", &["info", "persistence"]).contains("aof_rewrite_in_progress:1");
    soon("the file", async || !writes()).await;
    replica.stop();
    // The variable that made a replica of it is still set, as in docker-compose.yml.
    let promoted = Deployed::start(&of_replica, &["replicas"], &variables);
    assert!(saves(&promoted.store("shop:password@").await, &visitor, base).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn r81_deployed_sentinels_fail_over_and_the_old_primary_comes_back_as_a_replica() {
    let dir = Dir::new();
    let of = |name: &str, number: usize| dir.0.join(format!("{name}-{number}"));
    let primary = Deployed::start(&of("redis", 0), &["sentinel"], &PASSWORDS);
    let place = format!("127.0.0.1 {}", primary.port);
    let variables = as_replica_of(&place);
    let _replicas: Vec<_> =
        (1..SERVERS).map(|number| Deployed::start(&of("redis", number), &["sentinel"], &variables)).collect();
    let port = primary.port.to_string();
    let watch = |number| Deployed::run("start-sentinel.sh", &of("sentinel", number), &["127.0.0.1", &port], &PASSWORDS);
    let sentinels: Vec<_> = (0..SERVERS).map(watch).collect();
    let hosts: Vec<_> = sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
    let url = format!("redis-sentinel://{}/sessions", hosts.join(","));
    // The store is first, as the shop may be.
    let options = shop(RedisStore::options(&url)).sentinel_user("shop").sentinel_password("password");
    let store = options.start_without_redis().connect().await.unwrap();

    let know_all = |sentinel: &Deployed| {
        let all = |what: &str, count: usize| {
            let known = ask(sentinel.port, "shop", &["sentinel", what, "sessions"]);
            let link = if what == "replicas" { known.matches("master-link-status\nok\n").count() } else { count };
            link == count && known.matches("\nlast-ok-ping-reply\n").count() == count
        };
        all("replicas", SERVERS - 1) && all("sentinels", SERVERS - 1)
    };
    soon("the Sentinels know all", async || sentinels.iter().all(know_all)).await;
    let visitor = Visitor::new();
    soon("the first session", async || store.ping().await.is_ok()).await;
    let base = visitor.born(&store, &[("a", "1")]).await;
    soon("a copy", async || ask(primary.port, "shop", &["info", "replication"]).matches("lag=0").count() == 2).await;

    let port = primary.port;
    drop(primary);
    soon("the failover", async || saves(&store, &visitor, base).await).await;
    let back = Deployed::run_at(port, "start-redis.sh", &of("redis", 0), &["sentinel"], &PASSWORDS);
    soon("the old primary follows", async || ask(back.port, "shop", &["role"]).starts_with("slave\n")).await;
    assert!(is_there(&store, &visitor).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn r81_a_deployed_cluster_is_made_once_and_one_that_dies_is_replaced_while_the_others_serve() {
    let dir = Dir::new();
    let start = |number: usize| Deployed::start(&dir.0.join(number.to_string()), &["cluster"], &PASSWORDS);
    let mut nodes: Vec<_> = (0..2 * SERVERS).map(start).collect();
    let hosts: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    // The store is first, as the shop may be.
    let options = shop(RedisStore::options(&format!("redis-cluster://{}", hosts.join(","))));
    let store = options.start_without_redis().connect().await.unwrap();
    let create = || {
        let mut create = Command::new("sh");
        create.arg(deploy("cluster/create.sh")).args(&hosts).envs(PASSWORDS).stdin(Stdio::null());
        let made = create.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap()
    };
    assert!(create().contains("All 16384 slots covered"));
    assert_eq!(create(), "there is a cluster\n");

    let in_sync = |node: &Deployed| ask(node.port, "shop", &["info", "replication"]).contains("state=online");
    soon("the replicas", async || nodes[..SERVERS].iter().all(in_sync)).await;
    soon("the cluster", async || store.ping().await.is_ok()).await;
    let mut born = Vec::new();
    for _ in 0..30 {
        let visitor = Visitor::new();
        soon("a session", async || store.create(&visitor.key, &visitor.create(&[("a", "1")])).await.is_ok()).await;
        born.push(visitor);
    }
    let slot = |visitor: &Visitor| {
        let slot = ask(nodes[1].port, "servers", &["cluster", "keyslot", &visitor.name()]);
        slot.trim().parse::<usize>().unwrap()
    };
    // Slots are given out in the order of the nodes.
    let (of_first, of_others): (Vec<_>, Vec<_>) = born.iter().partition(|visitor| slot(visitor) <= 16_383 / SERVERS);
    assert!(!of_first.is_empty() && !of_others.is_empty());
    // One that is called online may have nothing yet.
    soon("a copy", async || {
        let info = ask(nodes[0].port, "shop", &["info", "replication"]);
        let number = |name: &str| info.split(name).nth(1)?.split([',', '\r']).next()?.parse::<u64>().ok();
        number("master_repl_offset:").is_some_and(|all| all > 0 && number(",offset=") == Some(all))
    })
    .await;
    drop(nodes.remove(0));
    soon("another primary", async || {
        for visitor in &of_others {
            assert!(is_there(&store, visitor).await, "a dead node is no concern of theirs");
        }
        is_there(&store, of_first[0]).await
    })
    .await;
    for visitor in of_first {
        assert!(is_there(&store, visitor).await);
    }
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread")]
async fn r78_r81_the_deployed_redis_with_tls_is_who_its_certificate_says_and_speaks_nothing_else() {
    use redis_session_store::Tls;

    let dir = Dir::new();
    let files = dir.0.join("tls");
    let path = |file: &str| files.join(file).display().to_string();
    let mut made = Command::new("sh");
    made.arg(deploy("tls/certificates.sh")).arg(&files).arg("localhost");
    let made = made.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    only_ours_may_enter(&files.join("private"));

    let (certificate, key) = (path("private/redis.crt"), path("private/redis.key"));
    let settings = ["tls", "--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
    let redis = Deployed::start(&dir.0.join("data"), &settings, &PASSWORDS);
    let options = |url: &str| shop(RedisStore::options(&format!("{url}:{}", redis.port)));
    let trusted = || Tls::default().ca_file(path("ca.crt"));
    let store = options("rediss://localhost").tls(trusted()).start_without_redis().connect().await.unwrap();
    soon("the start", async || store.ping().await.is_ok()).await;
    Visitor::new().born(&store, &[]).await;

    for (url, tls) in [("rediss://localhost", Tls::default()), ("rediss://127.0.0.1", trusted())] {
        let error = options(url).tls(tls).connect().await.unwrap_err();
        assert!(error.is_config(), "{url}: {error}");
    }
    assert!(options("redis://localhost").connect().await.is_err(), "in clear");
}

#[cfg(feature = "tls")]
fn only_ours_may_enter(dir: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_the_scripts_need_and_do_not_have_they_say() {
    let dir = Dir::new();
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let table: [(&str, &[&str], Variables<'_>, &str); 4] = [
        ("start-redis.sh", &[], &[], "REDIS_PASSWORD: is not set"),
        ("start-redis.sh", &["cluster"], &PASSWORDS[..1], "REDIS_SERVERS_PASSWORD: is not set"),
        ("start-sentinel.sh", &["127.0.0.1", "1"], &PASSWORDS[..1], "REDIS_SERVERS_PASSWORD: is not set"),
        (
            "start-sentinel.sh",
            &["127.0.0.1", "1"],
            &[("REDIS_PASSWORD", "p"), ("REDIS_SERVERS_PASSWORD", "p\"w")],
            "REDIS_SERVERS_PASSWORD may have letters and digits only",
        ),
    ];
    for (script, arguments, variables, says) in table {
        let mut command = Command::new("sh");
        command.arg(deploy(script)).args(arguments).current_dir(&dir.0);
        command.env_remove("REDIS_PASSWORD").env_remove("REDIS_SERVERS_PASSWORD").envs(variables.iter().copied());
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains(says), "{script} {arguments:?}: {said}");
        assert!(fs::read_dir(&dir.0).unwrap().next().is_none(), "{script} {arguments:?} left something");
    }
}
