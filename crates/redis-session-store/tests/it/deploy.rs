//! The Redis that `deploy/` sets up: what its user may do, and that it starts, keeps strangers out and survives.

mod topologies;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis_session_core::{Replication, Store, Stored};
use redis_session_store::RedisStore;
use redis_session_testkit::{Cluster, RedisServer, Sentinels, fast_contract};

use crate::{Visitor, destroy, patient, until};

pub(crate) const USERS: &str = include_str!("../../../../deploy/users.acl");

fn deploy(file: &str) -> String {
    format!("{}/../../deploy/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("redis-session-deploy-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a rule for the user `shop` allows, without the password.
pub(crate) fn rights(rule: &str) -> Vec<&str> {
    let (_, rule) = rule.split_once(" shop on ").expect("a rule for the user shop");
    rule.split_whitespace().skip(1).take_while(|word| word.starts_with(['~', '&', '+'])).collect()
}

/// Which rights more the docs print behind these words.
fn rights_more(docs: &str, after: &str) -> String {
    let (_, rest) = docs.split_once(after).expect("the docs name the rights");
    rest.split('`').nth(1).expect("in backticks").to_owned()
}

#[test]
fn r79_the_rule_is_the_same_wherever_it_is_written() {
    let docs = include_str!("../../src/lib.rs").replace("//!", "");
    assert_eq!(rights(&docs), rights(USERS));
    assert_eq!(rights(include_str!("../../../../README.md")), rights(USERS));

    let (cluster, sentinel) =
        (rights_more(&docs, "On a cluster he also needs"), rights_more(&docs, "behind Sentinels"));
    for (topology, more) in [("replicas", ""), ("cluster", &cluster), ("sentinel", &sentinel)] {
        let users = fs::read_to_string(deploy(&format!("{topology}/users.acl"))).unwrap();
        let wanted: Vec<_> = rights(USERS).into_iter().chain(more.split_whitespace()).collect();
        assert_eq!(rights(&users), wanted, "{topology}");
    }
    let (_, of_sentinels) = docs.split_once("A user of the Sentinels").expect("a rule for Sentinels");
    let sentinels = fs::read_to_string(deploy("sentinel/sentinel.acl")).unwrap();
    assert_eq!(rights(&sentinels), rights(of_sentinels));
}

#[test]
fn each_test_that_the_page_of_running_it_names_is_there() {
    let page = fs::read_to_string(deploy("../docs/running.md")).unwrap();
    let definitions = page.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    let mut count = 0;
    for (label, of) in definitions {
        let (file, name) = of.split_once(' ').unwrap();
        let tests = fs::read_to_string(deploy(&format!("../docs/{file}"))).expect(file);
        assert!(tests.contains(&format!("fn {}(", name.trim_matches('"'))), "{label}: {of}");
        assert!(page.contains(&format!("[test][{label}]")), "nothing is shown by {label}");
        count += 1;
    }
    let known = |label: &str| page.contains(&format!("\n[{label}]: "));
    let used = page.split("[test][").skip(1).map(|rest| rest.split(']').next().unwrap());
    assert_eq!(used.filter(|label| !known(label)).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(count > 40, "{count}");
}

/// The contract under deploy's settings and user, but that the test itself gets in without a password.
#[tokio::test(flavor = "multi_thread")]
async fn r71_r79_the_store_sends_what_its_rule_allows_and_the_rule_allows_no_more() {
    let dir = Dir::new();
    let users = dir.0.join("users.acl");
    // The SHA-256 of "password".
    let hash = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    let opened = USERS.replace("SHA256_OF_REDIS_PASSWORD", hash).replace("default off", "default on nopass");
    let lines: Vec<&str> = opened.lines().filter(|line| !line.starts_with('#')).collect();
    fs::write(&users, lines.join("\n")).unwrap();
    let (conf, users) = (deploy("redis.conf"), users.display().to_string());
    let redis = RedisServer::start_with(&[("include", &conf), ("aclfile", &users)]);
    assert_eq!(redis.run(&["CONFIG", "GET", "maxmemory-policy"]).texts()[1], "noeviction");

    redis.reset_stats();
    let store = patient(&format!("redis://shop:password@127.0.0.1:{}", redis.port())).await;
    fast_contract(store.clone(), tokio::time::sleep).await;
    ends_are_told(&store).await;
    let counts = redis.command_counts();
    refused_nothing(&redis);

    // AUTH needs no right, and the test asked for the log.
    let sent = counts.keys().map(String::as_str).filter(|name| !["ACL|LOG", "AUTH"].contains(name));
    let allowed: Vec<String> =
        rights(USERS).into_iter().filter_map(|right| right.strip_prefix('+')).map(str::to_uppercase).collect();
    assert_eq!(sent.collect::<BTreeSet<_>>(), allowed.iter().map(String::as_str).collect::<BTreeSet<_>>());
    let places: Vec<_> = rights(USERS).into_iter().filter(|right| right.starts_with(['~', '&'])).collect();
    assert_eq!(places, ["~sess:*", "&sess:ended"]);

    // What more a durable write needs, and no more than that.
    let durably = async || {
        let (visitor, one) = (Visitor::new(), Replication { replicas: 1, within: Duration::from_millis(20) });
        store.create_durably(&visitor.key, &visitor.create(&[]), one).await.unwrap().missed.unwrap().to_string()
    };
    assert!(durably().await.contains("allow +wait"));
    redis.run(&["ACL", "LOG", "RESET"]);
    redis.run(&["ACL", "SETUSER", "shop", "+wait"]);
    assert!(durably().await.contains("on 0 of 1 replicas"));
    refused_nothing(&redis);
}

fn refused_nothing(server: &RedisServer) {
    assert_eq!(server.run(&["ACL", "LOG"]).list(), [], "a command or a key was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_on_a_cluster_and_behind_sentinels_a_few_rights_more_are_enough() {
    let docs = include_str!("../../src/lib.rs").replace("//!", "");
    let rule = |more: &str| format!("{} {more}", rights(USERS).join(" "));
    let sees = |servers: &[RedisServer], rights: &str| {
        servers.iter().for_each(refused_nothing);
        let counts: Vec<_> = servers.iter().map(RedisServer::command_counts).collect();
        for right in rights.split(' ').map(|right| right[1..].to_uppercase()) {
            assert!(counts.iter().any(|counts| counts.contains_key(&right)), "{right} is not needed");
        }
    };
    let use_it = async |url: &str, password: Option<&str>| {
        let patience = Duration::from_secs(10);
        let options = RedisStore::options(url).deadline(patience).connect_deadline(patience);
        let options = match password {
            Some(password) => options.sentinel_user("shop").sentinel_password(password),
            None => options,
        };
        let store = options.connect().await.unwrap();
        fast_contract(store.clone(), tokio::time::sleep).await;
        ends_are_told(&store).await;
        store
    };

    let on_a_cluster = rights_more(&docs, "On a cluster he also needs");
    let cluster = Cluster::options().start_with(|options| options.user("shop", "password", &rule(&on_a_cluster)));
    let store = use_it(&cluster.url_of("shop", "password"), None).await;
    let visitor = Visitor::new();
    let slot = cluster.slot_of(&visitor.name());
    let from = cluster.primary_of_slot(slot).port();
    let primaries = cluster.shards();
    let (to, _) = primaries.iter().find(|(node, _)| node.port() != from).unwrap();
    let moving = cluster.begin_move(slot, to);
    visitor.born(&store, &[]).await;
    moving.finish();
    sees(cluster.nodes(), &on_a_cluster);

    let behind_sentinels = rights_more(&docs, "behind Sentinels");
    let sentinels =
        Sentinels::options().start_with(|options| options.user("shop", "password", &rule(&behind_sentinels)));
    let of_sentinels: Vec<_> =
        docs.split("ACL SETUSER shop on").nth(2).unwrap().split("```").next().unwrap().split_whitespace().collect();
    for sentinel in sentinels.sentinels() {
        sentinel.run(&[&["ACL", "SETUSER", "shop", "on"], &of_sentinels[..]].concat());
    }
    use_it(&sentinels.url_of("shop", "password"), Some("password")).await;
    sees(sentinels.servers(), &behind_sentinels);
    sentinels.sentinels().iter().for_each(refused_nothing);
}

/// A listener is told of an end.
async fn ends_are_told(store: &RedisStore) {
    let (told, mut news) = tokio::sync::mpsc::unbounded_channel();
    store.on_end(Arc::new(move |session| drop(told.send(session.cloned()))));
    assert_eq!(news.recv().await, Some(None), "the subscription has begun");
    let visitor = Visitor::new();
    visitor.born(store, &[]).await;
    store.end(&visitor.key, &destroy()).await.unwrap();
    // The connection's beginning may be told once more.
    let mut told = news.recv().await;
    while told == Some(None) {
        told = news.recv().await;
    }
    assert_eq!(told, Some(Some(visitor.key)));
    // The subscription is asked whether it hears.
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// What a script of `deploy/` started.
struct Deployed {
    process: Child,
    port: u16,
}

impl Deployed {
    /// Starts Redis with these arguments and variables.
    fn start(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::run("start-redis.sh", dir, arguments, variables)
    }

    fn run(script: &str, dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::run_at(free_port(), script, dir, arguments, variables)
    }

    fn run_at(port: u16, script: &str, dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        fs::create_dir_all(dir).unwrap();
        let port_setting = if arguments.contains(&"tls") { "--tls-port" } else { "--port" };
        let mut command = Command::new("sh");
        command.arg(deploy(script)).args(arguments).args([port_setting, &port.to_string()]).current_dir(dir);
        command.env_remove("REDIS_SERVERS_PASSWORD").env_remove("REPLICA_OF").envs(variables.iter().copied());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { process, port }
    }

    fn url(&self, credentials: &str) -> String {
        format!("redis://{credentials}127.0.0.1:{}", self.port)
    }

    async fn store(&self, credentials: &str) -> RedisStore {
        let store = RedisStore::options(&self.url(credentials)).start_without_redis().connect().await.unwrap();
        until("the start", async || store.ping().await.is_ok()).await;
        store
    }

    /// As `docker-compose stop` does.
    fn stop(mut self) {
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        self.process.wait().unwrap();
    }
}

/// That is free, and so is the one 10,000 above, where a node of a cluster listens to the others.
fn free_port() -> u16 {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let fits = |port: &u16| port.checked_add(10_000).is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok());
    std::iter::repeat_with(free).find(fits).unwrap()
}

impl Drop for Deployed {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r81_the_deployed_redis_keeps_strangers_out_and_sessions_over_a_restart() {
    let dir = Dir::new();
    let (password, credentials) = ("p$s' \"&/ö", "shop:p%24s'%20%22%26%2F%C3%B6@");
    let variables = [("REDIS_PASSWORD", password)];
    let redis = Deployed::start(&dir.0, &[], &variables);
    let store = redis.store(credentials).await;
    let visitor = Visitor::new();
    visitor.born(&store, &[("a", "1")]).await;

    for stranger in ["", ":nothing@", "shop:nothing@", "default:@"] {
        let error = RedisStore::connect(&redis.url(stranger)).await.unwrap_err();
        assert!(error.is_config(), "{stranger}: {error}");
    }
    let elsewhere = RedisStore::options(&redis.url(credentials)).prefix("secrets:").connect().await.unwrap();
    assert!(elsewhere.load(&visitor.key).await.unwrap_err().to_string().contains("NOPERM"));

    redis.stop();
    let redis = Deployed::start(&dir.0, &[], &variables);
    let loaded = redis.store(credentials).await.load(&visitor.key).await.unwrap();
    assert!(matches!(&loaded, Some(Stored::Record(record)) if record.fields.get(b"a").is_some()), "{loaded:?}");
}
