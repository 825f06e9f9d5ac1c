//! The way to a single server, at a name that may come to lead to another one.
//!
//! A primary that becomes a replica keeps its clients, and nothing tells them who writes in its place. So where a server
//! answers `READONLY`, its name is connected to anew, beside the connection that is there and goes on serving reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis_session_core::Error;
use tokio::sync::Notify;

use super::patience::{Absence, Patience};
use crate::node::{AbortOnDrop, Answer, Ask, Node, What};
use crate::server::Failure;
use crate::status::ServerStatus;
use crate::target::{Settings, Target, probe};

/// The least time between two tries. The name may come to lead elsewhere at any moment.
const SOONEST: Duration = Duration::from_millis(100);
/// The most: perhaps it was always a replica.
const LATEST: Duration = Duration::from_secs(1);
/// Who was not refused for so long was well in between.
const OVER: Duration = Duration::from_secs(10);

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
    /// It is a replica.
    refuses: AtomicBool,
}

impl Single {
    /// Begins to connect. With `wait_by`, also waits until it answers.
    pub(crate) async fn start(target: &Target, settings: &Settings, wait_by: Option<Instant>) -> Result<Self, Error> {
        let reached = Reached::start(target, settings, 0)?;
        if let Some(by) = wait_by {
            probe(target, settings, "TIME").await?;
            reached.node.connected(by).await.map_err(Failure::of_read)?;
        }
        let shared = Arc::new(Shared {
            target: Arc::new(target.clone()),
            settings: *settings,
            server: ArcSwap::from_pointee(reached),
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
            match answer {
                Err(Failure::Refused("READONLY")) => {
                    server.refuses.store(true, Ordering::Relaxed);
                    shared.look.notify_one();
                }
                // A replica reads as well as any.
                Ok(_) if matches!(ask.what, What::Script(..)) => shared.absence.over(),
                _ => {}
            }
            if !matches!(answer, Err(Failure::Refused("READONLY"))) || !patience.wait(&shared.absence).await {
                return answer;
            }
        }
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

impl Reached {
    fn start(target: &Target, settings: &Settings, number: u64) -> Result<Self, Error> {
        Ok(Self { node: Arc::new(Node::start(target, settings)?), number, refuses: AtomicBool::new(false) })
    }
}

impl Shared {
    /// Lets the server that the name leads to now take the place of the one that is there, as soon as it answers.
    async fn reach_anew(&self) {
        let number = self.server.load().number + 1;
        let Ok(reached) = Reached::start(&self.target, &self.settings, number) else { return };
        if reached.node.connected(Instant::now() + self.settings.connect_deadline).await.is_ok() {
            self.server.store(Arc::new(reached));
        }
    }
}

/// How long to wait until the next try, of who was first refused so long ago: a move that came later is found later.
fn pause(refused_for: Duration) -> Duration {
    (refused_for / 4).clamp(SOONEST, LATEST)
}

/// Connects anew for ever, where the server is a replica.
async fn look_after(shared: Arc<Shared>) {
    // Since when writes are refused, and when that was seen last. `None`: never.
    let mut refused: Option<(Instant, Instant)> = None;
    loop {
        shared.look.notified().await;
        // It may have been told of the one before.
        if !shared.server.load().refuses.load(Ordering::Relaxed) {
            continue;
        }
        let now = Instant::now();
        let since = refused.filter(|(_, last)| now - *last < OVER).map_or(now, |(since, _)| since);
        if since == now {
            let redis = shared.target.place();
            tracing::warn!(redis, "Redis takes no writes (READONLY); it is looked whether its name leads elsewhere");
        }
        refused = Some((since, now));
        shared.reach_anew().await;
        tokio::time::sleep(pause(since.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stays_a_replica_is_connected_to_once_a_second() {
        let ms = Duration::from_millis;
        let table = [(0, 100), (400, 100), (1000, 250), (2000, 500), (4000, 1000), (3_600_000, 1000)];
        for (refused_for, wanted) in table {
            assert_eq!(pause(ms(refused_for)), ms(wanted), "{refused_for} ms");
        }
    }
}
