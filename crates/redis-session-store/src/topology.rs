//! The way to the servers: to a single one, to those of a cluster, or to the primary that Sentinels name. fred connects
//! to single servers only; which of them has a key is known here.

mod cluster;
mod patience;
mod replicas;
mod sentinel;
mod single;
mod slots;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis_session_core::{Error, Replication, Time};

use self::cluster::Cluster;
use self::sentinel::Sentinels;
use self::single::Single;
use crate::node::{Answer, Ask, Node, What, pairs, reply};
use crate::script::Script;
use crate::server::{Copies, Failure, Pairs, Reply, ScanMark, Server};
use crate::status::ServerStatus;
use crate::target::{Settings, Target, Way};
use crate::url::Shape;

/// How long an answer may take of a server that is asked about the others.
const ANSWER: Duration = Duration::from_millis(150);
/// How long the rest of them has after the first one answered.
const OTHERS: Duration = Duration::from_millis(20);

/// Whether a failure says that servers may be elsewhere, or others than before.
fn is_news(failure: &Failure) -> bool {
    match failure {
        Failure::NotSent(_) | Failure::Lost(_) | Failure::Silent(_) | Failure::Elsewhere(_) => true,
        Failure::Refused(word) => matches!(*word, "READONLY" | "CLUSTERDOWN" | "MASTERDOWN"),
        Failure::Odd => false,
    }
}

/// All that a store needs to know of where its servers are.
pub(crate) enum Topology {
    Single(Single),
    Cluster(Cluster),
    Sentinels(Sentinels),
}

impl Topology {
    /// Begins to connect. With `wait_by`, also waits until the servers answer, and tells what is wrong if they do not.
    pub(crate) async fn start(way: &Way, settings: &Settings, wait_by: Option<Instant>) -> Result<Self, Error> {
        match &way.shape {
            Shape::Single => Single::start(&way.target, settings, wait_by).await.map(Self::Single),
            Shape::Cluster => Cluster::start(way, settings, wait_by).await.map(Self::Cluster),
            Shape::Sentinel(name) => Sentinels::start(way, name, settings, wait_by).await.map(Self::Sentinels),
        }
    }

    async fn send(&self, ask: Ask<'_>, by: Instant) -> Result<Answer, Failure> {
        match self {
            Self::Single(single) => single.send(&ask, by).await,
            Self::Cluster(cluster) => cluster.send(&ask, by).await,
            Self::Sentinels(sentinels) => sentinels.send(&ask, by).await,
        }
    }

    /// Whether it is known here who replicates whom.
    pub(crate) fn knows_replicas(&self) -> bool {
        !matches!(self, Self::Single(..))
    }

    /// A server that hears of everything that any of them publishes: the one that is listened to now, if that is one. `None`:
    /// none is well.
    pub(crate) fn listening_post(&self, now: Option<&Target>) -> Option<Arc<Target>> {
        match self {
            Self::Single(single) => Some(single.target().clone()),
            Self::Cluster(cluster) => cluster.listening_post(now),
            Self::Sentinels(sentinels) => sentinels.listening_post(),
        }
    }

    /// All servers that have keys and take writes, each with a name: where there are several, how it is reached.
    pub(crate) fn primaries(&self) -> Result<Vec<(String, Arc<Node>)>, Failure> {
        match self {
            Self::Single(single) => Ok(vec![single.named()]),
            Self::Cluster(cluster) => cluster.primaries(),
            Self::Sentinels(sentinels) => Ok(vec![sentinels.primary()?]),
        }
    }

    /// All servers that are known, as they are now.
    pub(crate) fn statuses(&self) -> Vec<ServerStatus> {
        match self {
            Self::Single(single) => vec![single.status()],
            Self::Cluster(cluster) => cluster.statuses(),
            Self::Sentinels(sentinels) => sentinels.statuses(),
        }
    }

    /// The server whose turn it is in a walk over all keys, and its name. `None`: all were visited.
    fn turn(&self, mark: &ScanMark) -> Result<Option<(String, Arc<Node>)>, Failure> {
        Ok(next(self.primaries()?, mark))
    }
}

impl Server for Topology {
    async fn hgetall(&self, key: &Bytes, by: Instant) -> Result<Pairs, Failure> {
        pairs(self.send(Ask { key, what: What::Load, wait: None }, by).await?.value)
    }

    async fn hgetall_near(&self, key: &Bytes, behind: Duration, by: Instant) -> Option<Pairs> {
        let ask = Ask { key, what: What::Load, wait: None };
        match self {
            Self::Single(..) => None,
            Self::Cluster(cluster) => cluster.load_near(&ask, behind, by).await,
            Self::Sentinels(sentinels) => sentinels.load_near(&ask, behind, by).await,
        }
    }

    async fn script(
        &self,
        script: &'static Script,
        key: &Bytes,
        args: Vec<Bytes>,
        wait: Option<Replication>,
        by: Instant,
    ) -> Result<(Reply, Copies), Failure> {
        let Answer { value, copies } = self.send(Ask { key, what: What::Script(script, &args), wait }, by).await?;
        Ok((reply(value), copies))
    }

    async fn command(&self, name: &'static str, key: &Bytes, args: Vec<Bytes>, by: Instant) -> Result<Reply, Failure> {
        let ask = Ask { key, what: What::Command(name, &args), wait: None };
        self.send(ask, by).await.map(|answer| reply(answer.value))
    }

    async fn scan(
        &self,
        from: ScanMark,
        args: Vec<Bytes>,
        by: Instant,
    ) -> Result<(Vec<Reply>, Option<ScanMark>), Failure> {
        let Some((server, node)) = self.turn(&from)? else { return Ok((Vec::new(), None)) };
        // Another server than before: from its beginning.
        let cursor = if server == from.server { from.cursor } else { 0 };
        let mut words = vec![Bytes::from(cursor.to_string())];
        words.extend(args);
        let Reply::List(parts) = node.tell("SCAN", words, by).await? else { return Err(Failure::Odd) };
        let Ok([Reply::Text(next), Reply::List(keys)]) = <[Reply; 2]>::try_from(parts) else {
            return Err(Failure::Odd);
        };
        let cursor = std::str::from_utf8(&next).ok().and_then(|next| next.parse().ok()).ok_or(Failure::Odd)?;
        let next = match cursor {
            0 => {
                let mark = ScanMark { visited: [from.visited, vec![server]].concat(), ..ScanMark::default() };
                self.turn(&mark)?.map(|_| mark)
            }
            cursor => Some(ScanMark { visited: from.visited, server, cursor }),
        };
        Ok((keys, next))
    }

    async fn time(&self, by: Instant) -> Result<Time, Failure> {
        match self {
            Self::Single(single) => single.node().time(by).await,
            Self::Cluster(cluster) => cluster.time(by).await,
            Self::Sentinels(sentinels) => sentinels.time(by).await,
        }
    }

    fn spreads_keys(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    fn now(&self) -> Option<Time> {
        match self {
            Self::Single(single) => single.node().clock().now(),
            Self::Cluster(cluster) => cluster.now(),
            Self::Sentinels(sentinels) => sentinels.now(),
        }
    }

    fn by_clock_of(&self, key: &Bytes, moment: Time) -> Time {
        match self {
            Self::Cluster(cluster) => cluster.by_clock_of(key, moment),
            Self::Single(..) | Self::Sentinels(_) => moment,
        }
    }

    fn wrote(&self) {
        if let Self::Single(single) = self {
            single.wrote();
        }
    }

    fn doubt(&self) {
        match self {
            Self::Single(single) => single.node().doubt(),
            Self::Cluster(cluster) => cluster.doubt(),
            Self::Sentinels(sentinels) => sentinels.doubt(),
        }
    }

    fn doubt_waits(&self) {
        self.primaries().into_iter().flatten().for_each(|(_, node)| node.doubt_waits());
    }
}

/// The server that a walk over all of them has begun with and that is still one of them, or else the first one that it did
/// not visit.
fn next<T>(servers: Vec<(String, T)>, mark: &ScanMark) -> Option<(String, T)> {
    let left = servers.into_iter().filter(|(server, _)| !mark.visited.contains(server));
    left.min_by_key(|(server, _)| *server != mark.server)
}

/// What those say who answer in time: a word that is newer may come a little later than the first one.
async fn gather<T>(others: Duration, answers: impl Iterator<Item = impl Future<Output = Option<T>>>) -> Vec<T> {
    let mut by = Instant::now() + ANSWER;
    let mut answers: FuturesUnordered<_> = answers.collect();
    let mut gathered = Vec::new();
    while let Ok(Some(answer)) = tokio::time::timeout_at(by.into(), answers.next()).await {
        if let Some(answer) = answer {
            by = by.min(Instant::now() + others);
            gathered.push(answer);
        }
    }
    gathered
}

/// Whether one of several is well. Of what is wrong with them a setting says more than a server that is away.
async fn any(probes: impl Iterator<Item = impl Future<Output = Result<(), Error>>>) -> Result<(), Error> {
    let mut probes: FuturesUnordered<_> = probes.collect();
    let mut wrong = None;
    while let Some(answer) = probes.next().await {
        match answer {
            Ok(()) => return Ok(()),
            Err(error) if wrong.is_none() || error.is_config() => wrong = Some(error),
            Err(_) => {}
        }
    }
    wrong.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use redis_session_core::Kind;

    use super::*;

    #[test]
    fn a_walk_visits_every_server_whatever_moves_meanwhile() {
        let mark = |visited: &[&str], server: &str| ScanMark {
            visited: visited.iter().map(|server| (*server).to_owned()).collect(),
            server: server.to_owned(),
            cursor: 0,
        };
        let table: [(&[&str], ScanMark, Option<&str>); 7] = [
            (&["a", "b", "c"], mark(&[], ""), Some("a")),
            (&["a", "b", "c"], mark(&[], "b"), Some("b")),
            (&["a", "b", "c"], mark(&["a"], ""), Some("b")),
            // The last one has the first slot by now.
            (&["c", "a", "b"], mark(&["a"], "b"), Some("b")),
            (&["c", "a", "b"], mark(&["a", "b"], ""), Some("c")),
            // Another one took the place of the one whose turn it was.
            (&["a", "d", "c"], mark(&["a"], "b"), Some("d")),
            (&["a", "b"], mark(&["b", "a"], ""), None),
        ];
        for (servers, mark, wanted) in table {
            let all = servers.iter().map(|server| ((*server).to_owned(), ())).collect();
            assert_eq!(next(all, &mark).map(|(server, ())| server).as_deref(), wanted, "{servers:?} {mark:?}");
        }
    }

    #[tokio::test]
    async fn one_that_is_well_is_enough_and_of_errors_a_setting_is_told() {
        let (well, away, wrong) = (None, Some(Kind::Unavailable), Some(Kind::Config));
        let table = [
            ([well, away, wrong], None),
            ([away, wrong, well], None),
            ([away, wrong, away], wrong),
            ([wrong, away, away], wrong),
            ([away, away, away], away),
        ];
        for (probes, wanted) in table {
            let what = format!("{probes:?}");
            let answers =
                probes.into_iter().map(async |probe| probe.map_or(Ok(()), |kind| Err(Error::new(kind, "it"))));
            assert_eq!(any(answers).await.err().map(|error| error.kind()), wanted, "{what}");
        }
    }
}
