//! What a server of a cluster says of it: whether it is well, how new its word is, and who has which slots.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::server::{Failure, Reply};
use crate::target::Address;

/// How many slots a cluster has.
pub(crate) const SLOTS: usize = END as usize;
const END: u16 = 16_384;

/// One server's view of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Whether it serves keys (`cluster_state`).
    pub(crate) ok: bool,
    /// `cluster_current_epoch`: the newest word of all has the highest one.
    pub(crate) epoch: u64,
    pub(crate) ranges: Vec<Range>,
    /// What the cluster calls the servers that it names.
    pub(crate) ids: BTreeSet<Bytes>,
}

/// Slots in a row that one primary has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) primary: Address,
    pub(crate) replicas: Vec<Address>,
}

impl View {
    /// From the replies to `CLUSTER INFO` and `CLUSTER SLOTS` of the server at `asked`.
    pub(crate) fn read(info: &Reply, slots: Reply, asked: &Address) -> Result<Self, Failure> {
        let Reply::Text(info) = info else { return Err(Failure::Odd) };
        let info = std::str::from_utf8(info).map_err(|_| Failure::Odd)?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let epoch = field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).ok_or(Failure::Odd)?;
        let Reply::List(slots) = slots else { return Err(Failure::Odd) };
        let ids = ids(&slots);
        let ranges = slots.into_iter().map(|slots| range(slots, asked).ok_or(Failure::Odd));
        let mut ranges: Vec<Range> = ranges.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        ranges.sort_by_key(|range| range.first);
        Ok(Self { ok: field("cluster_state") == Some("ok"), epoch, ranges, ids })
    }

    /// Whether it is of the cluster whose servers are called so. Servers come and go, but not all between two looks.
    pub(crate) fn is_of(&self, ids: &BTreeSet<Bytes>) -> bool {
        ids.is_empty() || !self.ids.is_disjoint(ids)
    }

    /// Whether both are as new, and name the same primaries.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let owners = |view: &'_ Self| -> Vec<_> {
            view.ranges.iter().map(|range| (range.first, range.last, range.primary.clone())).collect()
        };
        self.epoch == other.epoch && owners(self) == owners(other)
    }

    /// The slots that nobody has.
    pub(crate) fn uncovered(&self) -> BTreeSet<u16> {
        let (mut uncovered, mut next) = (BTreeSet::new(), 0);
        for range in &self.ranges {
            uncovered.extend(next..range.first);
            next = next.max(range.last + 1);
        }
        uncovered.extend(next..END);
        uncovered
    }
}

/// `[first, last, primary, replica…]`, each server as `[host, port, id…]`. `Some(None)`: nobody knows where its primary is.
fn range(slots: Reply, asked: &Address) -> Option<Option<Range>> {
    let Reply::List(parts) = slots else { return None };
    let mut parts = parts.into_iter();
    let mut slot = || match parts.next()? {
        Reply::Number(slot) => u16::try_from(slot).ok().filter(|slot| usize::from(*slot) < SLOTS),
        _ => None,
    };
    let (first, last) = (slot()?, slot()?);
    let mut servers = parts.map(|server| address(server, asked));
    let primary = servers.next()??;
    let replicas = servers.flatten().flatten().collect();
    (first <= last).then(|| primary.map(|primary| Range { first, last, primary, replicas }))
}

/// The third of what is said of each server.
fn ids(slots: &[Reply]) -> BTreeSet<Bytes> {
    fn parts(reply: &Reply) -> &[Reply] {
        match reply {
            Reply::List(parts) => parts,
            _ => &[],
        }
    }
    let servers = slots.iter().flat_map(|range| parts(range).iter().skip(2));
    let id = |server| match parts(server).get(2) {
        Some(Reply::Text(id)) => Some(id),
        _ => None,
    };
    // Each range names them, and they are kept for longer than the reply that they are part of.
    let ids: BTreeSet<_> = servers.filter_map(id).collect();
    ids.into_iter().map(|id| Bytes::copy_from_slice(id)).collect()
}

/// Without a host, it is the one that was asked: the cluster does not know by what name we reach it. `Some(None)`: nobody
/// knows where it is.
fn address(server: Reply, asked: &Address) -> Option<Option<Address>> {
    let Reply::List(parts) = server else { return None };
    let mut parts = parts.into_iter();
    let text = |host: Bytes| String::from_utf8(host.into()).ok();
    let host = match parts.next()? {
        Reply::Nothing => asked.host.clone(),
        Reply::Text(host) if host.is_empty() => asked.host.clone(),
        Reply::Text(host) if host == "?" => return Some(None),
        Reply::Text(host) => text(host)?,
        _ => return None,
    };
    match parts.next()? {
        Reply::Number(port) => Some(Some(Address::new(host, u16::try_from(port).ok().filter(|port| *port > 0)?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn server(host: Reply, port: i64) -> Reply {
        Reply::List(vec![host, Reply::Number(port), text(&format!("id of {port}"))])
    }

    fn slots(first: i64, last: i64, servers: Vec<Reply>) -> Reply {
        Reply::List([vec![Reply::Number(first), Reply::Number(last)], servers].concat())
    }

    fn info() -> Reply {
        text("cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:7\r\n")
    }

    fn asked() -> Address {
        Address::new("asked", 1)
    }

    #[test]
    fn a_view_says_who_has_which_slots() {
        let all = Reply::List(vec![
            slots(0, 9, vec![server(text("10.0.0.1"), 7), server(text("fd00::2"), 8)]),
            slots(10, 16_383, vec![server(Reply::Nothing, 9), server(text(""), 9), server(text("?"), 9)]),
        ]);
        let view = View::read(&info(), all, &asked()).unwrap();
        assert!(view.ok && view.epoch == 7 && view.uncovered().is_empty());
        assert_eq!((view.ranges[0].first, view.ranges[0].last), (0, 9));
        assert_eq!(view.ranges[0].primary, Address::new("10.0.0.1", 7));
        assert_eq!(view.ranges[0].replicas[0].to_string(), "[fd00::2]:8");
        assert_eq!(view.ranges[1].primary, Address::new("asked", 9));
        assert_eq!(view.ranges[1].replicas, [Address::new("asked", 9)]);
        let ids =
            |ports: &[u16]| ports.iter().map(|port| Bytes::from(format!("id of {port}"))).collect::<BTreeSet<_>>();
        assert_eq!(view.ids, ids(&[7, 8, 9]));
        assert!(view.is_of(&ids(&[8, 10])) && view.is_of(&ids(&[])) && !view.is_of(&ids(&[10, 11])));
        let unknown =
            Reply::List(vec![slots(0, 5, vec![server(text("?"), 7)]), slots(6, 9, vec![server(text("h"), 7)])]);
        let view = View::read(&info(), unknown, &asked()).unwrap();
        assert_eq!((view.ranges.len(), view.uncovered().len()), (1, SLOTS - 4));
        assert!(view.uncovered().contains(&5) && !view.uncovered().contains(&6));
        let failed = text("cluster_state:fail\r\ncluster_current_epoch:7");
        let view = View::read(&failed, Reply::List(vec![]), &asked()).unwrap();
        assert!(!view.ok && view.uncovered().len() == SLOTS);
    }

    #[test]
    fn any_other_reply_is_odd() {
        let good = || vec![server(text("h"), 7)];
        let bad = [
            Reply::Nothing,
            Reply::List(vec![Reply::Nothing]),
            Reply::List(vec![slots(0, 16_384, good())]),
            Reply::List(vec![slots(-1, 5, good())]),
            Reply::List(vec![slots(6, 5, good())]),
            Reply::List(vec![slots(0, 5, vec![])]),
            Reply::List(vec![slots(0, 5, vec![server(text("h"), 0)])]),
            Reply::List(vec![slots(0, 5, vec![server(text("h"), 65_536)])]),
            Reply::List(vec![slots(0, 5, vec![server(Reply::Other, 7)])]),
        ];
        for slots in bad {
            assert!(View::read(&info(), slots.clone(), &asked()).is_err(), "{slots:?}");
        }
        for info in [Reply::Nothing, text(""), text("cluster_state:ok"), text("cluster_current_epoch:-1")] {
            assert!(View::read(&info, Reply::List(vec![]), &asked()).is_err(), "{info:?}");
        }
    }
}
