//! Replicas that may answer reads: those that are known to be little behind their primary.
//!
//! Four times a second a primary says how much it has written, and its replicas how much of that they have. A replica that
//! has all of it is behind by no more than the time since its primary was asked, whatever becomes of its connection. One
//! that nobody can say that of is not asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;

use super::ANSWER;
use crate::node::{Ask, Node, pairs};
use crate::server::{Failure, Pairs, Reply};

/// How often replicas are compared with their primary.
pub(crate) const EVERY: Duration = Duration::from_millis(250);
/// How many answers of a primary are kept: a minute's, which is as far behind as a replica may be that is asked.
const KEPT: usize = 240;

/// The replicas of one primary.
#[derive(Default)]
pub(crate) struct Readers {
    /// Those that answered when they were compared last, and are not too far behind to know how far.
    list: ArcSwap<Vec<Vouched>>,
    next: AtomicUsize,
    /// What the primary had written, the newest first.
    written: Mutex<VecDeque<Written>>,
}

/// A replica through a connection on which it answers reads.
pub(crate) struct Reader {
    node: Arc<Node>,
    cluster: bool,
    /// Whether its user's missing right was told of.
    told: AtomicBool,
}

/// A replica that is known to have all that was written until a point in time.
struct Vouched {
    reader: Arc<Reader>,
    until: Instant,
    /// It did not answer a read since.
    silent: AtomicBool,
}

/// So much was written when the primary was asked.
struct Written {
    offset: u64,
    /// Offsets count in one history of writes; a primary that takes over begins another one.
    history: String,
    asked: Instant,
}

impl Readers {
    /// Asks the primary and its replicas how much they have, and takes note of who may answer.
    pub(crate) async fn compare(&self, primary: &Node, replicas: Vec<Arc<Reader>>) {
        let asked = Instant::now();
        if let Ok(Said { role: Role::Primary, history, offset }) = ask(primary).await {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.truncate(KEPT - 1);
            written.push_front(Written { offset, history, asked });
        }
        let said = join_all(replicas.iter().map(|reader| reader.ask())).await;
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let vouched = replicas.into_iter().zip(said).filter_map(|(reader, said)| {
            let until = has_all_until(&written, &said?)?;
            Some(Vouched { reader, until, silent: AtomicBool::new(false) })
        });
        self.list.store(Arc::new(vouched.collect()));
    }

    /// What a replica answers that is at most so far behind. `None`: there is none, or it says nothing that can be used.
    pub(crate) async fn load(&self, ask: &Ask<'_>, behind: Duration, by: Instant) -> Option<Pairs> {
        let list = self.list.load_full();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = (0..list.len()).filter_map(|nth| list.get((first + nth) % list.len()));
        let vouched = in_turn.find(|vouched| vouched.may_answer(behind))?;
        match vouched.reader.node.send(ask, false, by).await.and_then(|answer| pairs(answer.value)) {
            Ok(pairs) => Some(pairs),
            // The key is elsewhere, or the connection is a new one, on which nobody has said `READONLY` yet.
            Err(Failure::Elsewhere(_)) => None,
            Err(_) => {
                vouched.silent.store(true, Ordering::Relaxed);
                None
            }
        }
    }

    /// A reply was not one to its command.
    pub(crate) fn doubt(&self) {
        self.list.load().iter().for_each(|vouched| vouched.reader.node.doubt());
    }
}

impl Vouched {
    fn may_answer(&self, behind: Duration) -> bool {
        !self.silent.load(Ordering::Relaxed) && self.until.elapsed() < behind && self.reader.node.is_well()
    }
}

impl Reader {
    /// Of a primary behind Sentinels.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, cluster: false, told: AtomicBool::new(false) }
    }

    /// Of a cluster. The connection must be one for reads of replicas only: on it, a server answers also for keys that it
    /// is no primary of.
    pub(crate) fn of_cluster(node: Node) -> Self {
        Self { cluster: true, ..Self::new(Arc::new(node)) }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    async fn ask(&self) -> Option<Said> {
        let said = async {
            if self.cluster {
                // Each time: it counts for a connection only, and nobody tells when that was made anew.
                self.node.tell("READONLY", Vec::new(), Instant::now() + ANSWER).await?;
            }
            ask(&self.node).await
        };
        let said = said.await;
        if matches!(said, Err(Failure::Refused("NOPERM"))) && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "redis_session",
                "a replica is not read from: its user needs +info, and on a cluster +readonly"
            );
        }
        said.ok().filter(|said| said.role == Role::Replica)
    }
}

/// Until when a replica has all that was written. `None`: nobody knows.
fn has_all_until(written: &VecDeque<Written>, said: &Said) -> Option<Instant> {
    let has = |written: &&Written| written.history == said.history && written.offset <= said.offset;
    written.iter().find(has).map(|written| written.asked)
}

/// What a server says of its replication.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    role: Role,
    history: String,
    offset: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Primary,
    /// Of a primary that it is connected to, and in sync with.
    Replica,
    /// Of one that it has lost, or has begun to copy.
    Apart,
}

async fn ask(node: &Node) -> Result<Said, Failure> {
    let section = vec![Bytes::from_static(b"replication")];
    Said::read(&node.tell("INFO", section, Instant::now() + ANSWER).await?).ok_or(Failure::Odd)
}

impl Said {
    fn read(info: &Reply) -> Option<Self> {
        let Reply::Text(info) = info else { return None };
        let info = std::str::from_utf8(info).ok()?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let (role, offset) = match field("role")? {
            "master" => (Role::Primary, "master_repl_offset"),
            "slave" if field("master_link_status") == Some("up") => (Role::Replica, "slave_repl_offset"),
            "slave" => (Role::Apart, "slave_repl_offset"),
            _ => return None,
        };
        Some(Self { role, history: field("master_replid")?.to_owned(), offset: field(offset)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Reply {
        Reply::Text(Bytes::copy_from_slice(text.replace('\n', "\r\n").as_bytes()))
    }

    fn replica(history: &str, offset: u64) -> Said {
        Said { role: Role::Replica, history: history.to_owned(), offset }
    }

    #[test]
    fn a_server_says_how_much_it_has() {
        let primary = "# Replication\nrole:master\nmaster_replid:abc\nmaster_repl_offset:70\n";
        assert_eq!(Said::read(&info(primary)), Some(Said { role: Role::Primary, ..replica("abc", 70) }));
        let of = |link: &str| {
            let text = format!(
                "role:slave\nmaster_link_status:{link}\nslave_read_repl_offset:90\nslave_repl_offset:60\n\
                 master_replid:abc\nmaster_repl_offset:70\n"
            );
            Said::read(&info(&text)).unwrap()
        };
        assert_eq!(of("up"), replica("abc", 60), "what was run, and not what was received");
        assert_eq!(of("down").role, Role::Apart);
        for odd in ["", "role:sentinel\n", "role:master\nmaster_replid:abc\n", "role:master\nmaster_repl_offset:1\n"] {
            assert_eq!(Said::read(&info(odd)), None, "{odd}");
        }
        assert_eq!(Said::read(&Reply::Nothing), None);
    }

    #[test]
    fn a_replica_is_vouched_for_until_the_last_moment_of_which_it_has_all() {
        let now = Instant::now();
        let ago = |seconds: u64| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let at = |offset, history: &str, asked| Written { offset, history: history.to_owned(), asked };
        let written: VecDeque<_> =
            [at(20, "new", ago(1)), at(90, "old", ago(2)), at(70, "old", ago(3))].into_iter().collect();
        let table = [
            (replica("new", 20), Some(ago(1))),
            (replica("new", 19), None),
            (replica("old", 95), Some(ago(2))),
            (replica("old", 90), Some(ago(2))),
            (replica("old", 89), Some(ago(3))),
            (replica("old", 69), None),
            (replica("other", 1000), None),
        ];
        for (said, until) in table {
            assert_eq!(has_all_until(&written, &said), until, "{said:?}");
        }
    }
}
