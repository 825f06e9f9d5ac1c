//! Every fault against every operation, over HTTP: what the visitor is answered and when, that his cookie is kept, and how
//! soon all is well again. The tables in `docs/faults.md` are what is found here.

#![allow(clippy::print_stdout)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use futures_util::stream::{self, StreamExt as _};
use redis_session::{Expiry, KeyRing, RedisSessionLayer, RedisStore, RedisStoreOptions, Session, Sessions};
use redis_session_testkit::{Action, Browser, Cluster, Command, Page, Proxy, RedisOptions, RedisServer, slack};

/// The store's, as it is by default.
const DEADLINE: Duration = Duration::from_millis(250);
/// When an answer is due: a twentieth of a second after the deadline.
const LATEST: Duration = Duration::from_millis(250 + 50);
/// How soon after the end of a fault the first good answer is due.
const BACK: Duration = Duration::from_millis(500);
/// Faults that are looked at side by side: most of the time is waiting.
const AT_ONCE: usize = 4;

/// What befalls Redis, or the way to it.
#[derive(Clone, Copy)]
enum Fault {
    /// Connections are cut, and new ones lead nowhere.
    Gone,
    /// Each connection is cut at its next command.
    Cut,
    /// SIGSTOP.
    Frozen,
    /// What is sent does not arrive, and nobody says so.
    Hole,
    /// Each reply takes 300 ms.
    Slow,
    /// Commands of requests are answered like this.
    Answer(&'static str),
    /// Those that write.
    AnswerWrites(&'static str),
    /// It became a replica.
    Replica,
    /// It is out of memory.
    Memory,
    /// Our user lost his rights.
    Rights,
    /// Our user has another password now, and connections are cut.
    Password,
    /// It has forgotten the scripts.
    Scripts,
    /// It takes no more clients, and connections are cut.
    Clients,
}

const FAULTS: [(&str, Fault); 19] = [
    ("refused: nobody listens", Fault::Gone),
    ("reset: connections are cut", Fault::Cut),
    ("frozen process (SIGSTOP)", Fault::Frozen),
    ("black hole", Fault::Hole),
    ("300 ms latency", Fault::Slow),
    ("half a reply, then silence", Fault::Answer("*2\r\n$1\r\na\r\n$1000000\r\nabc")),
    ("garbage for a reply", Fault::Answer("\u{1}\u{2}HTTP/1.1 400\r\n\r\n")),
    ("LOADING", Fault::Answer("-LOADING Redis is loading the dataset in memory\r\n")),
    ("READONLY", Fault::Replica),
    ("OOM", Fault::Memory),
    ("NOPERM", Fault::Rights),
    ("WRONGPASS", Fault::Password),
    ("NOSCRIPT", Fault::Scripts),
    ("MISCONF", Fault::AnswerWrites("-MISCONF Redis is configured to save RDB snapshots\r\n")),
    ("CLUSTERDOWN", Fault::Answer("-CLUSTERDOWN The cluster is down\r\n")),
    ("MOVED", Fault::Answer("-MOVED 3999 127.0.0.1:1\r\n")),
    ("ASK", Fault::Answer("-ASK 3999 127.0.0.1:1\r\n")),
    ("TRYAGAIN", Fault::Answer("-TRYAGAIN Multiple keys request during rehashing of slot\r\n")),
    ("max clients", Fault::Clients),
];

/// What the servers of a cluster say, to a store that knows it for one. Where they send it, a server has the key.
const OF_A_CLUSTER: [&str; 4] = ["CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN"];

/// Where the answers above send us.
const ELSEWHERE: u16 = 1;

impl Fault {
    fn begin(self, redis: &RedisServer, proxy: &Proxy) {
        // To lead there again cuts all connections.
        let cut = || proxy.lead_to(redis.address());
        match self {
            Self::Gone => proxy.lead_to(SocketAddr::from(([127, 0, 0, 1], 1))),
            Self::Cut => proxy.fault(|_| Action::Cut),
            Self::Frozen => redis.pause(),
            Self::Hole => proxy.fault(|_| Action::HoldThenSend { after: Duration::MAX, cut: false }),
            Self::Slow => proxy.fault(|_| Action::Delay(Duration::from_millis(300))),
            Self::Answer(reply) => proxy.fault(move |command| match of_a_request(command) {
                true => Action::Answer(reply.into()),
                false => Action::Pass,
            }),
            Self::AnswerWrites(reply) => proxy.fault(move |command| match of_a_request(command) && !reads(command) {
                true => Action::Answer(reply.into()),
                false => Action::Pass,
            }),
            Self::Replica => drop(redis.run(&["REPLICAOF", "127.0.0.1", "1"])),
            Self::Memory => drop(redis.run(&["CONFIG", "SET", "maxmemory", "1"])),
            Self::Rights => drop(redis.run(&["ACL", "SETUSER", "shop", "-@all", "+time", "+client|id", "+info"])),
            Self::Password => {
                redis.run(&["ACL", "SETUSER", "shop", "resetpass", ">another"]);
                cut();
            }
            Self::Scripts => drop(redis.run(&["SCRIPT", "FLUSH"])),
            Self::Clients => {
                redis.run(&["CONFIG", "SET", "maxclients", "1"]);
                cut();
            }
        }
    }

    fn end(self, redis: &RedisServer, proxy: &Proxy) {
        proxy.clear_faults();
        proxy.release();
        match self {
            Self::Gone => proxy.lead_to(redis.address()),
            Self::Frozen => redis.resume(),
            Self::Replica => drop(redis.run(&["REPLICAOF", "NO", "ONE"])),
            Self::Memory => drop(redis.run(&["CONFIG", "SET", "maxmemory", "0"])),
            Self::Rights => drop(redis.run(&["ACL", "SETUSER", "shop", "+@all"])),
            Self::Password => drop(redis.run(&["ACL", "SETUSER", "shop", "resetpass", ">secret"])),
            Self::Clients => drop(redis.run(&["CONFIG", "SET", "maxclients", "10000"])),
            _ => {}
        }
    }
}

fn of_a_request(command: &Command) -> bool {
    reads(command) || matches!(command.name(), "EVALSHA" | "EVAL" | "ZREM")
}

fn reads(command: &Command) -> bool {
    matches!(command.name(), "HGETALL" | "HMGET" | "ZSCORE" | "ZRANGEBYSCORE")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Load,
    Create,
    Save,
    Touch,
    Rotate,
    Destroy,
    Revoke,
}

use Operation::{Create, Destroy, Load, Revoke, Rotate, Save, Touch};

const OPERATIONS: [Operation; 7] = [Load, Create, Save, Touch, Rotate, Destroy, Revoke];

/// What a shop keeps its sessions in.
enum Servers {
    Single(RedisServer),
    /// One server that has all slots: by the proxy, and, at the address that a redirection names, by itself.
    Cluster(Cluster),
}

impl Servers {
    fn single() -> Self {
        Self::Single(with_user(RedisServer::options()).start())
    }

    fn cluster() -> Self {
        Self::Cluster(Cluster::options().primaries(1).replicas(0).start_with(with_user))
    }

    fn redis(&self) -> &RedisServer {
        match self {
            Self::Single(redis) => redis,
            Self::Cluster(cluster) => &cluster.nodes()[0],
        }
    }

    fn store(&self, proxy: &Proxy) -> RedisStoreOptions {
        match self {
            Self::Single(_) => RedisStore::options(&proxy.url()),
            Self::Cluster(cluster) => {
                let (by_proxy, itself) = (proxy.port(), cluster.nodes()[0].port());
                RedisStore::options(&format!("redis-cluster://127.0.0.1:{by_proxy}"))
                    .map_address(move |host, port| (host.to_owned(), if port == ELSEWHERE { itself } else { by_proxy }))
            }
        }
    }
}

fn with_user(options: RedisOptions) -> RedisOptions {
    options.user("shop", "secret", "~* &* +@all")
}

/// A Redis that something befalls when a handler says so: between what it loads and what it does.
struct Site {
    servers: Servers,
    proxy: Proxy,
    fault: Fault,
    sessions: Sessions,
    /// When it struck. `None`: not yet.
    struck: Mutex<Option<Instant>>,
}

impl Site {
    fn strike(&self) {
        self.fault.begin(self.servers.redis(), &self.proxy);
        *self.struck.lock().unwrap() = Some(Instant::now());
    }
}

type Here = State<Arc<Site>>;

fn paths(site: &Arc<Site>) -> Router {
    let save = async |State(site): Here, session: Session| {
        site.strike();
        session.increment("edits", 1)
    };
    let rotate = async |State(site): Here, session: Session| {
        site.strike();
        session.rotate().await
    };
    let destroy = async |State(site): Here, session: Session| {
        site.strike();
        session.destroy().await
    };
    let revoke = async |State(site): Here| {
        site.strike();
        site.sessions.revoke_all("ada").await.map(drop)
    };
    let touch = async |State(site): Here, _: Session| site.strike();
    let begin = async |session: Session| {
        session.insert("edits", &0)?;
        session.log_in("ada").await
    };
    let read = async |session: Session| session.get::<u64>("edits").map(|edits| format!("{edits:?}"));
    Router::new()
        .route("/begin", get(begin))
        .route("/load", get(read))
        .route("/create", get(async |session: Session| session.insert("edits", &0)))
        .route("/save", get(save))
        .route("/touch", get(touch))
        .route("/rotate", get(rotate))
        .route("/destroy", get(destroy))
        .route("/revoke", get(revoke))
        .with_state(site.clone())
}

/// An application before a Redis of its own.
struct Shop {
    site: Arc<Site>,
    app: Router,
    /// The same, but that every request is a touch.
    touching: Router,
    /// Who looks whether all is well: somebody with a session, since Redis is not asked about strangers.
    witness: Browser<Router>,
}

/// What a fault did to an operation.
struct Cell {
    status: u16,
    answered: Duration,
    back: Duration,
}

impl Shop {
    async fn open(servers: Servers, fault: Fault) -> Self {
        let proxy = Proxy::start(servers.redis().address());
        let store = servers.store(&proxy).user("shop").password("secret").deadline(DEADLINE);
        let store = store.connect_deadline(Duration::from_secs(10)).connect().await.unwrap();
        let layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
        let site = Arc::new(Site { servers, proxy, fault, sessions: layer.sessions(), struck: Mutex::default() });
        let touching = layer.clone().expiry(Expiry::default().touch_every(Duration::ZERO));
        let app = paths(&site).layer(layer);
        let witness = Browser::new(app.clone());
        let shop = Self { touching: paths(&site).layer(touching), witness, app, site };
        while shop.witness.get("/create").await.status != 200 {}
        shop
    }

    /// Somebody with a session, logged in. A busy machine may need several tries.
    async fn visitor(&self, app: &Router) -> Browser<Router> {
        loop {
            let visitor = Browser::new(self.app.clone());
            if visitor.get("/begin").await.status == 200 && visitor.get("/load").await.status == 200 {
                let same = Browser::new(app.clone());
                same.jar().clone_from(&visitor.jar());
                return same;
            }
        }
    }

    /// Until reading and writing work again. Answers how long the first good answer took.
    async fn well(&self, since: Instant) -> Duration {
        while self.witness.get("/load").await.body != "Some(0)" {
            assert!(since.elapsed() < Duration::from_secs(20), "it does not recover");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let back = since.elapsed();
        let by_proxy = self.site.proxy.count("EVALSHA");
        // A stranger's first edit is one, whatever was written before. Of a cluster, nobody follows the last redirection any
        // more once it comes by the proxy.
        let writes = async || Browser::new(self.app.clone()).get("/create").await.status == 200;
        while !writes().await || self.site.proxy.count("EVALSHA") == by_proxy {
            assert!(since.elapsed() < Duration::from_secs(20), "it does not write again");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        back
    }

    async fn look(&self, what: &str, operation: Operation) -> Cell {
        loop {
            *self.site.struck.lock().unwrap() = None;
            let visitor = match operation {
                Create => Browser::new(self.app.clone()),
                Touch => self.visitor(&self.touching).await,
                _ => self.visitor(&self.app).await,
            };
            let before = visitor.copy();
            if matches!(operation, Load | Create) {
                self.site.strike();
            }
            let page = visitor.get(&format!("/{operation:?}").to_lowercase()).await;
            let answered = Instant::now();
            self.site.fault.end(self.site.servers.redis(), &self.site.proxy);
            let back = self.well(Instant::now()).await;
            let Some(struck) = *self.site.struck.lock().unwrap() else {
                // What comes before the fault failed, on a busy machine.
                continue;
            };
            self.check(what, operation, &page, &visitor, &before).await;
            return Cell { status: page.status.as_u16(), answered: answered.duration_since(struck), back };
        }
    }

    /// What must hold whatever the answer is.
    async fn check(
        &self,
        what: &str,
        operation: Operation,
        page: &Page,
        visitor: &Browser<Router>,
        before: &Browser<Router>,
    ) {
        let what = format!("{what}, {operation:?}: {page:?}");
        let worked = page.status == 200;
        assert!(worked || page.body.is_empty(), "{what}");
        let cookies = page.set_cookies();
        let removed = cookies.iter().any(|cookie| cookie.contains("Max-Age=0"));
        match operation {
            Destroy => assert!(cookies.len() == 1 && removed, "{what}"),
            Create | Rotate => assert!(cookies.len() == usize::from(worked) && !removed, "{what}"),
            Load | Save | Touch | Revoke => assert!(cookies.is_empty(), "{what}"),
        }
        // The witness may write at the same time, so it may take more than one try.
        let read = async |browser: &Browser<Router>| loop {
            let page = browser.get("/load").await;
            if page.status == 200 {
                return page.body;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        match operation {
            Load | Touch => assert_eq!(read(visitor).await, "Some(0)", "{what}"),
            Save if worked => assert_eq!(read(visitor).await, "Some(1)", "{what}"),
            Save => assert!(["Some(0)", "Some(1)"].contains(&&*read(visitor).await), "{what}"),
            Create => assert_eq!(read(visitor).await == "Some(0)", worked, "{what}"),
            Rotate if worked => {
                assert_eq!(read(visitor).await, "Some(0)", "{what}");
                assert_eq!(read(before).await, "None", "{what}");
            }
            // An answer that is lost may have been that of a rotation: who has the old cookie logs in again.
            Rotate => assert!(["Some(0)", "None"].contains(&&*read(visitor).await), "{what}"),
            Revoke if worked => assert_eq!(read(visitor).await, "None", "{what}"),
            Revoke => drop(read(visitor).await),
            // The library goes on trying after a logout that failed.
            Destroy => {
                let start = Instant::now();
                while read(before).await != "None" {
                    assert!(start.elapsed() < Duration::from_secs(20), "it lives on: {what}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// `WRITE_FAULTS=1` writes the page anew, with `STRICT_TIMES=1` only if the times are as promised.
#[tokio::test(flavor = "multi_thread")]
async fn r83_r85_r86_r88_r91_each_fault_at_each_operation_is_answered_in_time_and_recovered_from() {
    let of_a_cluster = FAULTS.into_iter().filter(|(name, _)| OF_A_CLUSTER.contains(name));
    let looks = FAULTS.into_iter().map(|(name, fault)| tokio::spawn(look_at(name, fault, Servers::single)));
    let looks = looks.chain(of_a_cluster.map(|(name, fault)| tokio::spawn(look_at(name, fault, Servers::cluster))));
    let rows: Vec<Row> = stream::iter(looks).buffered(AT_ONCE).map(Result::unwrap).collect().await;
    let latest = rows.iter().map(|row| row.answered).max().unwrap();
    let longest_away = rows.iter().map(|row| row.back).max().unwrap();
    println!(
        "the longest answer took {latest:?}, and the first good one came at most {longest_away:?} after the end of a fault"
    );

    let (page, path) = (include_str!("../../docs/faults.md"), concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md"));
    let (of_one, of_a_cluster) = rows.split_at(FAULTS.len());
    let wanted = with_tables(page, [of_one, of_a_cluster]);
    if std::env::var("WRITE_FAULTS").is_ok() {
        std::fs::write(path, wanted).unwrap();
    } else {
        let (page, wanted) = (without_times(page), without_times(&wanted));
        assert_eq!(page, wanted, "docs/faults.md is not what was found: WRITE_FAULTS=1 writes it anew");
    }
}

/// A row of a table: a fault at all operations.
struct Row {
    name: &'static str,
    statuses: Vec<u16>,
    /// The longest answer.
    answered: Duration,
    /// The longest time from the end of the fault to the first good answer.
    back: Duration,
}

const BEGIN: &str = "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
const END: &str = "\n<!-- The end of what tests/it/faults.rs found. -->\n";

/// The page, with what was found between these.
fn with_tables(page: &str, tables: [&[Row]; 2]) -> String {
    let (mut wanted, mut rest) = (String::new(), page);
    for rows in tables {
        let (head, after) = rest.split_once(BEGIN).expect("the beginning of a table");
        let (_, tail) = after.split_once(END).expect("the end of a table");
        wanted.extend([head, BEGIN]);
        for Row { name, statuses, answered, back } in rows {
            let statuses = statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(" | ");
            let [answered, back] = [answered, back].map(|time| time.as_micros().div_ceil(1000));
            writeln!(wanted, "| {name} | {statuses} | {answered} ms | {back} ms |").unwrap();
        }
        wanted.push_str(END);
        rest = tail;
    }
    wanted + rest
}

/// The page without the last two columns of these tables, which no two runs find the same.
fn without_times(page: &str) -> String {
    let statuses = |row: &str| row.rsplitn(3, " | ").nth(2).unwrap_or_default().to_owned();
    let line = |line: &str| if line.ends_with(" ms |") { statuses(line) } else { line.to_owned() };
    page.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// One row of the table.
async fn look_at(name: &'static str, fault: Fault, servers: fn() -> Servers) -> Row {
    // A cluster takes two seconds, in which others would wait for this thread.
    let servers = tokio::task::spawn_blocking(servers).await.unwrap();
    let shop = Shop::open(servers, fault).await;
    let mut cells = Vec::new();
    for operation in OPERATIONS {
        cells.push(shop.look(name, operation).await);
    }
    let most = |of: fn(&Cell) -> Duration| cells.iter().map(of).max().unwrap();
    let (answered, back) = (most(|cell| cell.answered), most(|cell| cell.back));
    let statuses: Vec<u16> = cells.iter().map(|cell| cell.status).collect();
    println!("{name}: {statuses:?}, the longest answer after {answered:?}, back at most {back:?} after the end");
    assert!(answered < LATEST + slack(Duration::from_secs(1)), "{name}: an answer took {answered:?}");
    assert!(back < BACK + slack(Duration::from_millis(1500)), "{name}: back after {back:?}");
    Row { name, statuses, answered, back }
}
