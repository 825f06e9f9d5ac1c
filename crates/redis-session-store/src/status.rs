//! How each server is, as this process finds it: for metrics, and for who looks after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::node::Node;
use crate::server::Failure;

/// A server of a [`RedisStore`](crate::RedisStore), as this process finds it.
///
/// ```no_run
/// # use redis_session_store::RedisStore;
/// fn page(store: &RedisStore) -> String {
///     let line = |status: redis_session_store::ServerStatus| {
///         let redis = status.server;
///         format!(
///             "sessions_redis_up{{redis={redis:?}}} {}\nsessions_redis_commands_total{{redis={redis:?}}} {}\n\
///              sessions_redis_unanswered_total{{redis={redis:?}}} {}\n",
///             u8::from(status.is_well), status.commands, status.unanswered,
///         )
///     };
///     store.servers().into_iter().map(line).collect()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Where it is reached: `host:port`, or the path of a socket.
    pub server: String,
    /// Whether it takes the writes, as far as this process knows: those of some slots on a cluster.
    pub is_primary: bool,
    /// Whether it is connected and answers its health check; only then anything is sent to it.
    pub is_well: bool,
    /// What its clock shows, by which its sessions live. `None`: it has not told the time yet.
    pub time: Option<SystemTime>,
    /// How many commands for sessions and for users' lists of them were sent to it, or to those that were reached there
    /// before it. It counts from the moment when this process first heard of the server; where the others of a cluster or
    /// Sentinels no longer name one, it is forgotten, and begins anew if they do again.
    pub commands: u64,
    /// How many of them had no answer in time, or lost their connection.
    pub unanswered: u64,
    /// How many of them were answered with an error, such as `OOM` or `READONLY`.
    pub refused: u64,
}

impl ServerStatus {
    /// Also of what is sent by connections of another kind to the same server.
    pub(crate) fn of(node: &Node, others: Option<&Node>, is_primary: bool) -> Self {
        let sum = |of: fn(&Counts) -> &AtomicU64| {
            let all = [Some(node), others].into_iter().flatten();
            all.map(|node| of(node.counts()).load(Ordering::Relaxed)).sum()
        };
        Self {
            server: node.place().to_owned(),
            is_primary,
            is_well: node.is_well(),
            time: node.clock().now().map(|now| UNIX_EPOCH + Duration::from_millis(now.as_millis())),
            commands: sum(|counts| &counts.sent),
            unanswered: sum(|counts| &counts.unanswered),
            refused: sum(|counts| &counts.refused),
        }
    }
}

/// What became of the commands that were sent to one server.
#[derive(Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    unanswered: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    pub(crate) fn note<T>(&self, answer: &Result<T, Failure>) {
        let also = match answer {
            // Nothing was sent.
            Err(Failure::NotSent(_)) => return,
            Ok(_) => None,
            Err(Failure::Silent(_) | Failure::Lost(_)) => Some(&self.unanswered),
            Err(Failure::Refused(_) | Failure::Elsewhere(_) | Failure::Odd) => Some(&self.refused),
        };
        self.sent.fetch_add(1, Ordering::Relaxed);
        if let Some(also) = also {
            also.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_does_not_count() {
        let counts = Counts::default();
        let answers = [
            Ok(()),
            Err(Failure::NotSent(None)),
            Err(Failure::Silent(None)),
            Err(Failure::Lost(None)),
            Err(Failure::Refused("OOM")),
            Err(Failure::Odd),
        ];
        answers.iter().for_each(|answer| counts.note(answer));
        let counted = [&counts.sent, &counts.unanswered, &counts.refused].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counted, [5, 2, 2]);
    }
}
