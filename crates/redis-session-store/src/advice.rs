//! What about a Redis's settings would cost visitors their logins, or more memory than it must.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis_session_core::Error;

use crate::node::Node;
use crate::server::{Failure, Reply, Server};
use crate::store::Operations;
use crate::topology::Topology;

/// With this or more, a session of ordinary size is one compact block in Redis's memory.
const COMPACT: u64 = 1024;

/// What to change about a Redis that keeps sessions, from [`RedisStore::advise`](crate::RedisStore::advise). Its text says
/// what happens and what to write.
///
/// ```
/// use redis_session_store::Advice;
///
/// let advice = Advice::Evicts { policy: "allkeys-lru".to_owned() };
/// assert_eq!(
///     advice.to_string(),
///     "maxmemory-policy is allkeys-lru: where memory runs short, Redis logs visitors out, and lists of users' sessions \
///      lose some; set maxmemory-policy noeviction",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// Where memory runs short, Redis takes away sessions that live: its `maxmemory-policy` is another one than
    /// `noeviction`.
    Evicts {
        /// The policy that is set.
        policy: String,
    },
    /// Nothing is written to disk, neither an append-only file nor snapshots.
    KeepsNothing,
    /// There is no append-only file, and perhaps there are snapshots.
    KeepsSnapshots,
    /// Sessions with a field longer than this many bytes are not kept as one compact block.
    Spreads {
        /// `hash-max-listpack-value`, in bytes.
        longest: u64,
    },
    /// Of a cluster: where one primary is away, all the others refuse everybody (`cluster-require-full-coverage yes`).
    NeedsFullCoverage,
    /// The user may not ask: what this command would have shown was not looked at.
    NotAllowed {
        /// `INFO` or `CONFIG GET`.
        command: &'static str,
    },
    /// Of a cluster: this is so at one primary, and not at all of them.
    At {
        /// Where that one is reached, as `host:port`.
        server: String,
        /// What to change there.
        advice: Box<Advice>,
    },
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicts { policy } => write!(
                f,
                "maxmemory-policy is {policy}: where memory runs short, Redis logs visitors out, and lists of users' \
                 sessions lose some; set maxmemory-policy noeviction"
            ),
            Self::KeepsNothing => f.write_str(
                "Redis writes nothing to disk: when it is started again, all visitors are logged out; set appendonly yes",
            ),
            Self::KeepsSnapshots => f.write_str(
                "there is no append-only file: when Redis is started again, logins and logouts since its last snapshot \
                 are undone; set appendonly yes",
            ),
            Self::Spreads { longest } => write!(
                f,
                "hash-max-listpack-value is {longest}: sessions with a longer field take about half as much memory \
                 again; set hash-max-listpack-value {COMPACT}"
            ),
            Self::NeedsFullCoverage => f.write_str(
                "cluster-require-full-coverage is yes: where one primary is away, no visitor is served until its replica has \
                 taken over; set cluster-require-full-coverage no",
            ),
            Self::NotAllowed { command: "INFO" } => f.write_str(
                "this user may not run INFO, so maxmemory-policy and appendonly were not looked at; allow +info",
            ),
            Self::NotAllowed { command } => write!(
                f,
                "this user may not run {command}, so save and hash-max-listpack-value (and \
                 cluster-require-full-coverage of a cluster) were not looked at; look at them with redis-cli (a user who \
                 may see settings sees passwords among them)"
            ),
            Self::At { server, advice } => write!(f, "at {server}, {advice}"),
        }
    }
}

impl Operations<Topology> {
    pub(crate) async fn advise(&self) -> Result<Vec<Advice>, Error> {
        let (servers, in_a_cluster, by) = (self.server.primaries(), self.server.spreads_keys(), self.by());
        let servers = servers.map_err(Failure::of_read)?;
        let asked = servers.into_iter().map(async |(place, node)| {
            let advice = Settings { node, by }.advice(in_a_cluster).await?;
            Ok::<_, Failure>((place, advice))
        });
        Ok(merged(&try_join_all(asked).await.map_err(Failure::of_read)?))
    }
}

/// What is so everywhere, once; and what is so somewhere, with the place.
fn merged(all: &[(String, Vec<Advice>)]) -> Vec<Advice> {
    let mut merged = Vec::new();
    for (server, of_one) in all {
        for advice in of_one {
            let everywhere = all.iter().all(|(_, of_another)| of_another.contains(advice));
            let advice = match everywhere {
                true => advice.clone(),
                false => Advice::At { server: server.clone(), advice: Box::new(advice.clone()) },
            };
            if !merged.contains(&advice) {
                merged.push(advice);
            }
        }
    }
    merged
}

/// The settings of one server, as far as it tells them.
struct Settings {
    node: Arc<Node>,
    by: Instant,
}

impl Settings {
    async fn advice(&self, in_a_cluster: bool) -> Result<Vec<Advice>, Failure> {
        let mut advice = Vec::new();
        let saves = self.setting("save").await?;
        let longest = self.setting("hash-max-*-value").await?;
        match (self.info("memory").await?, self.info("persistence").await?) {
            (Some(memory), Some(persistence)) => {
                advice.extend(policy(&memory));
                advice.extend(disk(&persistence, saves.as_deref()));
            }
            _ => advice.push(Advice::NotAllowed { command: "INFO" }),
        }
        let longest = longest.as_deref().map(str::parse);
        match longest {
            Some(Ok(longest)) if longest < COMPACT => advice.push(Advice::Spreads { longest }),
            Some(_) if saves.is_some() => {}
            _ => advice.push(Advice::NotAllowed { command: "CONFIG GET" }),
        }
        if in_a_cluster && self.setting("cluster-require-full-coverage").await?.as_deref() == Some("yes") {
            advice.push(Advice::NeedsFullCoverage);
        }
        Ok(advice)
    }

    /// A section of what Redis tells of itself. `None`: it does not tell us.
    async fn info(&self, section: &'static str) -> Result<Option<String>, Failure> {
        self.tell("INFO", &[section]).await.map(|reply| reply.as_ref().and_then(text))
    }

    /// The first setting of this name. `None`: Redis does not tell us.
    async fn setting(&self, name: &'static str) -> Result<Option<String>, Failure> {
        let reply = self.tell("CONFIG", &["GET", name]).await?;
        let Some(Reply::List(pair)) = reply else { return Ok(None) };
        Ok(pair.get(1).and_then(text))
    }

    async fn tell(&self, command: &'static str, words: &[&'static str]) -> Result<Option<Reply>, Failure> {
        let words = words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
        match self.node.tell(command, words, self.by).await {
            Ok(reply) => Ok(Some(reply)),
            // By the rights of the user; or there is no such command, as where Redis is somebody else's service.
            Err(Failure::Refused("NOPERM" | "ERR")) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

fn policy(memory: &str) -> Option<Advice> {
    let policy = field(memory, "maxmemory_policy")?;
    (policy != "noeviction").then(|| Advice::Evicts { policy: policy.to_owned() })
}

fn disk(persistence: &str, saves: Option<&str>) -> Option<Advice> {
    match (field(persistence, "aof_enabled")?, saves) {
        ("0", Some("")) => Some(Advice::KeepsNothing),
        ("0", _) => Some(Advice::KeepsSnapshots),
        _ => None,
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn text(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_of_its_disk_and_its_memory_is_judged() {
        let table = [
            ("aof_enabled:1\r\n", Some(""), None),
            ("loading:0\r\naof_enabled:0\r\n", Some(""), Some(Advice::KeepsNothing)),
            ("aof_enabled:0\r\n", Some("3600 1"), Some(Advice::KeepsSnapshots)),
            ("aof_enabled:0\r\n", None, Some(Advice::KeepsSnapshots)),
            ("", None, None),
        ];
        for (persistence, saves, wanted) in table {
            assert_eq!(disk(persistence, saves), wanted, "{persistence:?} {saves:?}");
        }
        assert_eq!(policy("maxmemory_policy:noeviction\r\n"), None);
        let evicts = Some(Advice::Evicts { policy: "volatile-ttl".to_owned() });
        assert_eq!(policy("used_memory:1\r\nmaxmemory_policy:volatile-ttl\r\n"), evicts);
    }

    #[test]
    fn what_is_so_everywhere_is_told_once_and_the_rest_with_its_place() {
        let [both, one, other] = [Advice::KeepsNothing, Advice::KeepsSnapshots, Advice::NeedsFullCoverage];
        let at =
            |server: &str, advice: &Advice| Advice::At { server: server.to_owned(), advice: advice.clone().into() };
        let of = |server: &str, advice: &[&Advice]| {
            (server.to_owned(), advice.iter().map(|&advice| advice.clone()).collect::<Vec<_>>())
        };
        let table = [
            (vec![], vec![]),
            (vec![of("a", &[&both, &one])], vec![both.clone(), one.clone()]),
            (
                vec![of("a", &[&one, &both]), of("b", &[&both, &other]), of("c", &[&other, &both])],
                vec![at("a", &one), both.clone(), at("b", &other), at("c", &other)],
            ),
        ];
        for (all, wanted) in table {
            assert_eq!(merged(&all), wanted, "{all:?}");
        }
        assert!(at("10.0.0.1:6379", &both).to_string().starts_with("at 10.0.0.1:6379, Redis writes nothing to disk"));
    }
}
