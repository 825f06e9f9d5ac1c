//! The way to a single server, at a name that may come to lead to another one.
//!
//! A primary that becomes a replica keeps its clients, and nothing tells them who writes in its place. So where a server
//! answers `READONLY`, its name is connected to anew, beside the connection that is there and goes on serving reads. Who
//! answers there takes its place if he says that he is a primary. One that stays a replica keeps its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use redis_session_core::{Error, Random};
use tokio::sync::Notify;

use super::patience::{Absence, Patience};
use crate::node::{AbortOnDrop, Answer, Ask, Node, Trouble};
use crate::server::{Failure, Reply};
use crate::status::ServerStatus;
use crate::target::{Settings, Target, probe};

/// The least time between two tries. The name may come to lead elsewhere at any moment.
const SOONEST: Duration = Duration::from_millis(100);
/// The most: perhaps it was always a replica.
const LATEST: Duration = Duration::from_secs(5);

/// One server.
pub(crate) struct Single {
    shared: Arc<Shared>,
    _looks: AbortOnDrop<()>,
}

struct Shared {
    target: Arc<Target>,
    settings: Settings,
    server: ArcSwap<Reached>,
    /// Wakes who connects anew.
    look: Notify,
    /// Of who takes writes.
    absence: Absence,
}

/// The server that the name led to when it was connected to.
struct Reached {
    node: Arc<Node>,
    /// How many there were before.
    number: u64,
    /// It is a replica, or may be one.
    refuses: AtomicBool,
}

impl Single {
    /// Begins to connect. With `wait_by`, also waits until it answers.
    pub(crate) async fn start(target: &Target, settings: &Settings, wait_by: Option<Instant>) -> Result<Self, Error> {
        let node = Arc::new(Node::start(target, settings)?);
        if let Some(by) = wait_by {
            probe(target, settings, "TIME").await?;
            node.connected(by).await.map_err(Failure::of_read)?;
        }
        let shared = Arc::new(Shared {
            target: Arc::new(target.clone()),
            settings: *settings,
            server: ArcSwap::from_pointee(Reached { node, number: 0, refuses: AtomicBool::new(false) }),
            look: Notify::new(),
            absence: Absence::default(),
        });
        Ok(Self { _looks: AbortOnDrop(tokio::spawn(look_after(shared.clone()))), shared })
    }

    pub(crate) async fn send(&self, ask: &Ask<'_>, by: Instant) -> Result<Answer, Failure> {
        let shared = &*self.shared;
        let mut patience = Patience::new(by, shared.settings.deadline);
        loop {
            let server = shared.server.load_full();
            let answer = server.node.send(ask, false, by).await;
            if !matches!(answer, Err(Failure::Refused("READONLY"))) {
                return answer;
            }
            if !server.refuses.swap(true, Ordering::Relaxed) {
                let redis = shared.target.place();
                tracing::warn!(
                    redis,
                    "Redis takes no writes (READONLY); it is looked whether its name leads elsewhere"
                );
            }
            shared.look.notify_one();
            if !patience.wait(&shared.absence).await {
                return answer;
            }
        }
    }

    /// It takes writes. (A script that finds nothing to write says so on a replica as well.)
    pub(crate) fn wrote(&self) {
        let server = self.shared.server.load();
        // Not a write each time: many share this line of memory.
        if server.refuses.load(Ordering::Relaxed) {
            server.refuses.store(false, Ordering::Relaxed);
        }
        self.shared.absence.over();
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.shared.target
    }

    pub(crate) fn node(&self) -> Arc<Node> {
        self.shared.server.load().node.clone()
    }

    pub(crate) fn status(&self) -> ServerStatus {
        let server = self.shared.server.load();
        ServerStatus::of(&server.node, None, !server.refuses.load(Ordering::Relaxed))
    }

    /// With a name that another server does not have.
    pub(crate) fn named(&self) -> (String, Arc<Node>) {
        let server = self.shared.server.load();
        (server.number.to_string(), server.node.clone())
    }
}

impl Shared {
    /// Lets the server that the name leads to now take the place of the one that is there, as soon as it answers, unless it
    /// takes no writes either. Tells why it cannot be connected, as it was told of the one that was tried before.
    async fn reach_anew(&self, trouble: Trouble) -> Trouble {
        let before = self.server.load_full();
        let node = Node::start_after(&self.target, &self.settings, before.node.counts().clone(), trouble).ok()?;
        if node.connected(Instant::now() + self.settings.connect_deadline).await.is_err() {
            return node.trouble();
        }
        let is_primary = is_primary(&node, Instant::now() + self.settings.connect_deadline).await;
        if is_primary != Some(false) {
            let refuses = AtomicBool::new(is_primary.is_none());
            self.server.store(Arc::new(Reached { node: Arc::new(node), number: before.number + 1, refuses }));
        }
        if is_primary == Some(true) {
            self.absence.over();
        }
        None
    }
}

/// Whether a server takes writes, by its own word; it does not while it is loading. `None`: our user may not ask.
async fn is_primary(node: &Node, by: Instant) -> Option<bool> {
    let sections = ["replication", "persistence"].map(|section| Bytes::from_static(section.as_bytes()));
    match node.tell("INFO", sections.to_vec(), by).await {
        Ok(Reply::Text(info)) => says_primary(&info),
        Err(Failure::Refused("NOPERM" | "ERR")) => None,
        _ => Some(false),
    }
}

fn says_primary(info: &[u8]) -> Option<bool> {
    let has = |line: &str| info.split(|byte| *byte == b'\n').any(|one| one.trim_ascii_end() == line.as_bytes());
    match (has("role:master"), has("role:slave")) {
        (true, _) => Some(!has("loading:1")),
        (_, true) => Some(false),
        _ => None,
    }
}

/// How long to wait until the next try, where nothing was written for so long: a move that came later is found later.
fn pause(refused_for: Duration) -> Duration {
    (refused_for / 4).clamp(SOONEST, LATEST)
}

/// A little less, so that processes that were refused at once do not all come at once.
fn scattered(pause: Duration) -> Duration {
    let by = Random::system().array().map_or(0, u8::from_ne_bytes);
    pause - pause * u32::from(by) / 1024
}

/// Connects anew for ever, where the server is a replica.
async fn look_after(shared: Arc<Shared>) {
    let mut trouble = None;
    loop {
        shared.look.notified().await;
        // It may have been told of the one before.
        if shared.server.load().refuses.load(Ordering::Relaxed) {
            trouble = shared.reach_anew(trouble).await;
            tokio::time::sleep(scattered(pause(shared.absence.lasts()))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stays_a_replica_is_looked_at_ever_more_rarely() {
        let ms = Duration::from_millis;
        let table = [(0, 100), (400, 100), (1000, 250), (2000, 500), (4000, 1000), (12_000, 3000), (3_600_000, 5000)];
        for (refused_for, wanted) in table {
            assert_eq!(pause(ms(refused_for)), ms(wanted), "{refused_for} ms");
        }
        let all: std::collections::BTreeSet<_> = (0..99).map(|_| scattered(LATEST)).collect();
        assert!(all.len() > 9 && all.iter().all(|pause| (LATEST * 3 / 4..=LATEST).contains(pause)), "{all:?}");
    }

    #[test]
    fn a_server_says_whether_it_takes_writes() {
        let table = [
            ("# Replication\r\nrole:master\r\n\r\n# Persistence\r\nloading:0\r\n", Some(true)),
            ("# Replication\r\nrole:master\r\n\r\n# Persistence\r\nloading:1\r\n", Some(false)),
            ("# Replication\r\nrole:slave\r\nmaster_link_status:up\r\n", Some(false)),
            ("redis_version:7\r\n", None),
        ];
        for (info, wanted) in table {
            assert_eq!(says_primary(info.as_bytes()), wanted, "{info}");
        }
    }
}
