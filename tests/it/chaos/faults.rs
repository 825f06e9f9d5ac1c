//! What befalls the servers of a cluster, one fault after the other, and which of them took the place of which.

use std::iter;
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use redis_session_testkit::{Cluster, RedisServer};

/// A replica that is promoted may lack what its primary had acknowledged so shortly before it went.
const NOT_YET_COPIED: Duration = Duration::from_secs(1);

/// What is done to one server that is drawn by lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// It is killed, and comes back when its replica has taken its place. Not before: it is empty, and its replica
    /// would follow it.
    PrimaryKilled,
    /// The same, and its replica has lost the way to it a moment before: what it acknowledged since then goes with it.
    PrimaryKilledAhead,
    /// It is frozen until its replica has taken its place, and then goes on where it was: what everybody sees of a
    /// server behind a network that is cut.
    PrimaryFrozen,
    /// It loses the lines to all other servers until its replica has taken its place. Clients still reach both.
    PrimaryCutOff,
    /// The same, and clients do not reach it either: what everybody sees of a machine whose network is gone.
    PrimaryUnreachable,
    /// The servers are two halves by lot that do not reach each other for a while. Clients reach all of them.
    Split,
    /// `CLUSTER FAILOVER`.
    FailedOver,
    ReplicaKilled,
    ReplicaFrozen,
    /// It loses the line to its primary for a while, and to nobody else.
    ReplicaCutOff,
    /// A primary is frozen for too short a time for a failover.
    Hiccup,
    /// It hears no client for a while (`CLIENT PAUSE`), and is well to the other servers: a network that is cut between
    /// the application and it. What was sent meanwhile runs late.
    Deaf,
    /// Its connections are cut, again and again.
    Cut,
    /// Slots with sessions go to another primary, key by key.
    SlotsMoved,
}

impl Fault {
    pub(super) const ALL: [Self; 14] = [
        // First, since it loses something for certain.
        Self::PrimaryKilledAhead,
        // So that it happens however short the time is.
        Self::PrimaryCutOff,
        Self::PrimaryKilled,
        Self::PrimaryFrozen,
        Self::PrimaryUnreachable,
        Self::Split,
        Self::FailedOver,
        Self::ReplicaKilled,
        Self::ReplicaFrozen,
        Self::ReplicaCutOff,
        Self::Hiccup,
        Self::Deaf,
        Self::Cut,
        Self::SlotsMoved,
    ];
    /// Those after which the primaries are the same.
    pub(super) const WITHOUT_FAILOVER: [Self; 7] = [
        Self::SlotsMoved,
        Self::ReplicaCutOff,
        Self::ReplicaKilled,
        Self::ReplicaFrozen,
        Self::Hiccup,
        Self::Deaf,
        Self::Cut,
    ];
}

/// A fault that is over.
pub(super) struct Happened {
    pub(super) fault: Fault,
    began: Instant,
    ended: Instant,
    /// The slots of primaries whose place was taken.
    replaced: Vec<RangeInclusive<u16>>,
    /// The slots that came to another primary, and when.
    moved: Vec<(u16, Instant)>,
}

impl Happened {
    /// Whether this fault may have lost what was acknowledged for a slot at this point in time.
    fn may_have_lost(&self, slot: u16, acknowledged: Instant) -> bool {
        let in_time = (self.began - NOT_YET_COPIED..=self.ended).contains(&acknowledged);
        in_time && self.replaced.iter().any(|slots| slots.contains(&slot))
    }
}

/// The fault that may have lost what was acknowledged for a slot. `None`: whoever lost it, no server did.
pub(super) fn culprit(happened: &[Happened], slot: u16, acknowledged: Instant) -> Option<Fault> {
    // A key that comes to another primary has yet to be copied to that one's replica.
    let moved = happened.iter().flat_map(|fault| &fault.moved).filter(|(moved, _)| *moved == slot).map(|(_, at)| *at);
    let mut written = iter::once(acknowledged).chain(moved.filter(|moved| *moved >= acknowledged));
    written.find_map(|at| happened.iter().find(|fault| fault.may_have_lost(slot, at))).map(|fault| fault.fault)
}

/// Has these faults happen one after the other, each kind once before any comes again: the first two first, then as the
/// lot has it.
pub(super) fn torment(cluster: &Cluster, faults: &[Fault], mut rng: Rng, until: Instant) -> Vec<Happened> {
    let mut happened = Vec::new();
    let mut order = faults.to_vec();
    rng.shuffle(&mut order[2..]);
    loop {
        for fault in &order {
            if Instant::now() >= until {
                return happened;
            }
            happened.push(befall(cluster, *fault, &mut rng));
        }
        rng.shuffle(&mut order);
    }
}

fn befall(cluster: &Cluster, fault: Fault, rng: &mut Rng) -> Happened {
    let (began, before) = (Instant::now(), shards(cluster));
    let (port, _) = rng.choice(&before).expect("a cluster has primaries");
    let primary = at(cluster, *port);
    let replica = cluster.replicas_of(primary)[0];
    let mut moved = Vec::new();
    match fault {
        Fault::PrimaryKilled => {
            let key = key_on(cluster, primary);
            primary.kill();
            cluster.wait_for_new_primary(&key, primary);
            primary.restart();
        }
        Fault::PrimaryKilledAhead => {
            let key = key_on(cluster, primary);
            // Frozen, so that it does not connect anew.
            replica.pause();
            primary.run(&["CLIENT", "KILL", "TYPE", "replica"]);
            pause(rng, 300..600);
            primary.kill();
            replica.resume();
            cluster.wait_for_new_primary(&key, primary);
            primary.restart();
        }
        Fault::PrimaryFrozen => {
            let key = key_on(cluster, primary);
            primary.pause();
            cluster.wait_for_new_primary(&key, primary);
            primary.resume();
        }
        Fault::PrimaryCutOff | Fault::PrimaryUnreachable => {
            let key = key_on(cluster, primary);
            if fault == Fault::PrimaryUnreachable {
                cluster.cut_clients(primary);
            }
            for other in cluster.nodes().iter().filter(|node| node.port() != primary.port()) {
                cluster.cut(primary, other);
            }
            until_another_serves(cluster, &key, primary);
            cluster.mend();
        }
        Fault::Split => {
            split(cluster, rng);
            pause(rng, 500..4000);
            cluster.mend();
        }
        Fault::FailedOver => drop(cluster.failover(&key_on(cluster, primary))),
        Fault::ReplicaKilled => {
            replica.kill();
            pause(rng, 200..1500);
            replica.restart();
        }
        Fault::ReplicaFrozen => {
            replica.pause();
            pause(rng, 200..2000);
            replica.resume();
        }
        Fault::ReplicaCutOff => {
            cluster.cut(primary, replica);
            pause(rng, 200..2000);
            cluster.mend();
        }
        Fault::Hiccup => {
            primary.pause();
            pause(rng, 50..400);
            primary.resume();
        }
        Fault::Deaf => {
            let long = rng.u64(200..2000);
            primary.run(&["CLIENT", "PAUSE", &long.to_string(), "ALL"]);
            thread::sleep(Duration::from_millis(long));
        }
        Fault::Cut => {
            for _ in 0..rng.u32(1..8) {
                primary.run(&["CLIENT", "KILL", "TYPE", "normal"]);
                pause(rng, 0..100);
            }
        }
        Fault::SlotsMoved => moved = move_slots(cluster, rng),
    }
    cluster.wait_until_well();
    wait_for_replicas(cluster);
    pause(rng, 0..500);
    let after = shards(cluster);
    let gone = before.into_iter().filter(|(port, _)| !after.iter().any(|(other, _)| other == port));
    let replaced: Vec<_> = gone.flat_map(|(_, slots)| slots).collect();
    Happened { fault, began, ended: Instant::now(), replaced, moved }
}

/// Cuts the lines between two halves, each of at least two servers.
fn split(cluster: &Cluster, rng: &mut Rng) {
    let mut nodes: Vec<_> = cluster.nodes().iter().collect();
    rng.shuffle(&mut nodes);
    let (one, other) = nodes.split_at(rng.usize(2..nodes.len() - 1));
    for (one, other) in one.iter().flat_map(|one| other.iter().map(move |other| (one, other))) {
        cluster.cut(one, other);
    }
}

/// Waits until another server serves a key, whatever this one thinks.
fn until_another_serves(cluster: &Cluster, key: &str, primary: &RedisServer) {
    let begun = Instant::now();
    while cluster.primary_of(key).port() == primary.port() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody takes the place of a primary that is cut off");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until each primary has its replica again. A server that came back may have stayed a primary, without slots: where
/// replicas do not migrate, Redis lets it follow who has its slots only if that one has no others.
fn wait_for_replicas(cluster: &Cluster) {
    let alone = || {
        let shards = cluster.shards().into_iter().map(|(primary, _)| primary);
        shards.filter(|primary| cluster.replicas_of(primary).is_empty()).collect::<Vec<_>>()
    };
    let begun = Instant::now();
    while let Some(primary) = alone().first() {
        let table = primary.run(&["CLUSTER", "NODES"]).text();
        assert!(begun.elapsed() < Duration::from_secs(20), "port {} stays alone:\n{table}", primary.port());
        let has_slots = |node: &RedisServer| cluster.shards().iter().any(|(primary, _)| primary.port() == node.port());
        let is_idle = |node: &&RedisServer| node.run(&["ROLE"]).list()[0].text() == "master" && !has_slots(node);
        if let Some(idle) = cluster.nodes().iter().find(is_idle).filter(|_| begun.elapsed() > Duration::from_secs(2)) {
            idle.run(&["FLUSHALL"]);
            // It may have found its place in this moment.
            let _ = idle.command(&["CLUSTER", "REPLICATE", &primary.run(&["CLUSTER", "MYID"]).text()]);
            cluster.wait_until_well();
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn move_slots(cluster: &Cluster, rng: &mut Rng) -> Vec<(u16, Instant)> {
    let mut moved = Vec::new();
    for _ in 0..rng.u32(2..8) {
        let ports: Vec<_> = shards(cluster).into_iter().map(|(port, _)| port).collect();
        let from = at(cluster, *rng.choice(&ports).expect("a cluster has primaries"));
        let key = from.run(&["RANDOMKEY"]);
        if key.is_nil() {
            continue;
        }
        let slot = cluster.slot_of(&key.text());
        let others: Vec<_> = ports.into_iter().filter(|port| *port != cluster.primary_of_slot(slot).port()).collect();
        let moving = cluster.begin_move(slot, at(cluster, *rng.choice(&others).expect("three primaries")));
        pause(rng, 0..100);
        moving.move_keys();
        pause(rng, 0..100);
        moving.finish();
        moved.push((slot, Instant::now()));
    }
    moved
}

fn pause(rng: &mut Rng, millis: std::ops::Range<u64>) {
    thread::sleep(Duration::from_millis(rng.u64(millis)));
}

/// The ports of the primaries, each with its slots; the servers agree on them at this moment.
fn shards(cluster: &Cluster) -> Vec<(u16, Vec<RangeInclusive<u16>>)> {
    cluster.shards().into_iter().map(|(primary, slots)| (primary.port(), slots)).collect()
}

fn at(cluster: &Cluster, port: u16) -> &RedisServer {
    cluster.nodes().iter().find(|node| node.port() == port).expect("a server of the cluster")
}

/// A key that this primary serves.
fn key_on(cluster: &Cluster, primary: &RedisServer) -> String {
    let mut keys = (0..).map(|number: u32| number.to_string());
    keys.find(|key| cluster.primary_of(key).port() == primary.port()).expect("there is no end of keys")
}

#[test]
fn only_a_failover_of_its_slot_right_after_it_or_after_its_slot_came_there_explains_a_loss() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let happened = |fault, began: u64, replaced: &[RangeInclusive<u16>], moved: &[(u16, Instant)]| Happened {
        fault,
        began: at(began),
        ended: at(began + 5),
        replaced: replaced.to_vec(),
        moved: moved.to_vec(),
    };
    let happened = [
        happened(Fault::SlotsMoved, 10, &[], &[(7, at(12))]),
        happened(Fault::PrimaryKilled, 12, &[0..=99], &[]),
        happened(Fault::Hiccup, 30, &[], &[]),
    ];
    let killed = Some(Fault::PrimaryKilled);
    let cases = [
        (50, 12, killed),
        (50, 17, killed),
        (50, 11, killed),
        (50, 10, None),
        (50, 18, None),
        (100, 12, None),
        (7, 1, killed),
        (7, 31, None),
    ];
    for (slot, acknowledged, wanted) in cases {
        assert_eq!(culprit(&happened, slot, at(acknowledged)), wanted, "slot {slot} at {acknowledged}");
    }
}
