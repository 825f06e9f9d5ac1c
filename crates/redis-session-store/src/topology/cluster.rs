//! The way to the servers of a cluster: which of them has a slot, from what they say themselves.
//!
//! The word of the server with the highest epoch counts, so that one that was cut off cannot bring an old primary back. An
//! older one counts only where most of the primaries that it names say the same, and only after a while: then the cluster
//! was made anew. So does one that names none of the servers that are known, and only a seed's, since an address that was
//! one of ours may have come to be that of another cluster's server; until then nothing is sent there.
//! A server that answered `CLUSTERDOWN` is left alone until it says itself that it serves again: fred closes the
//! connection at that answer, and gives it to everybody whose command was under way. For a slot that its owner itself does
//! not know of, it would answer the same, so nobody has that slot, whatever the others say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use fred::util::redis_keyslot;
use futures_util::future::join_all;
use redis_session_core::{Error, Kind, Time};
use tokio::sync::Notify;

use super::patience::{Absence, Patience};
use super::replicas::{self, Reader, Readers};
use super::slots::{SLOTS, View};
use super::{ANSWER, OTHERS, any, gather, is_news};
use crate::clock::ServerClock;
use crate::node::{AbortOnDrop, Answer, Ask, Node};
use crate::server::{Elsewhere, Failure, Pairs};
use crate::status::ServerStatus;
use crate::target::{Address, Settings, Target, Way, probe};

/// How often the servers are asked while all is well.
const EVERY: Duration = Duration::from_secs(5);
/// How often while a server that has slots is away, or says that it serves none.
const SOON: Duration = Duration::from_millis(50);
/// The same once this lasts for [`LONG`].
const LATER: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(120);
/// After so long without a word that is new enough, an older one may be believed: the cluster was made anew.
const REBUILT: Duration = Duration::from_secs(15);
/// How often one operation is sent elsewhere without a pause. More means that servers disagree.
const HOPS: usize = 5;
/// Nobody has this slot.
const NOBODY: u16 = u16::MAX;

/// The servers of a cluster.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    _looks: AbortOnDrop<()>,
    /// Compares replicas with their primaries, from the first read of a replica on.
    compares: OnceLock<AbortOnDrop<()>>,
}

struct Shared {
    way: Way,
    settings: Settings,
    table: ArcSwap<Table>,
    /// All servers that we have a connection to, by where we reach them.
    members: Mutex<BTreeMap<Address, Arc<Member>>>,
    /// Wakes who looks after the table.
    look: Notify,
    /// Of all servers.
    lost: Absence,
    /// Of those that have slots which nobody has.
    unowned: Absence,
    /// Addresses that were left out, and told of once.
    left_out: Mutex<BTreeSet<Address>>,
}

/// One server.
struct Member {
    address: Address,
    target: Arc<Target>,
    node: Arc<Node>,
    /// It said that the cluster is down, or it is another cluster's.
    gated: AtomicBool,
    /// The slots that nobody has, by its own last word.
    uncovered: Mutex<BTreeSet<u16>>,
    absence: Absence,
    /// When it was last begun with, or sent to by another one.
    wanted: Mutex<Instant>,
    /// As a primary: its replicas.
    readers: Readers,
    /// As a replica, where reads of replicas were asked for.
    reader: OnceLock<Option<Arc<Reader>>>,
}

impl Member {
    fn is_well(&self) -> bool {
        !self.gated.load(Ordering::Relaxed) && self.node.is_well()
    }

    fn reader(&self, settings: &Settings) -> Option<Arc<Reader>> {
        let start = || Node::start(&self.target, &Settings { clients: 1, ..*settings });
        let reader = self.reader.get_or_init(|| start().ok().map(|node| Arc::new(Reader::of_cluster(node))));
        reader.clone()
    }

    fn uncovered(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.uncovered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody else can say how it is.
    fn is_to_be_heard(&self) -> bool {
        self.gated.load(Ordering::Relaxed) || !self.uncovered().is_empty()
    }

    /// What it says of the cluster.
    async fn view(&self, by: Instant) -> Result<View, Failure> {
        let word = |word: &'static str| vec![Bytes::from_static(word.as_bytes())];
        let (info, slots) =
            tokio::join!(self.node.tell("CLUSTER", word("INFO"), by), self.node.tell("CLUSTER", word("SLOTS"), by),);
        View::read(&info?, slots?, &self.address)
    }
}

/// Who has which slot.
#[derive(Clone)]
struct Table {
    /// An index into `primaries` for each slot, or [`NOBODY`].
    owners: Vec<u16>,
    primaries: Vec<Arc<Member>>,
    /// Connected, so that one that takes over answers at once; each behind the index of its primary.
    replicas: Vec<(u16, Arc<Member>)>,
    epoch: u64,
    /// What the cluster calls them.
    ids: BTreeSet<Bytes>,
    /// The clock by which the store tells the time; servers' own may differ by milliseconds.
    clock: Arc<ServerClock>,
}

impl Table {
    fn empty() -> Self {
        let (primaries, replicas, ids, clock) = Default::default();
        Self { owners: vec![NOBODY; SLOTS], primaries, replicas, epoch: 0, ids, clock }
    }

    fn owner(&self, slot: u16) -> Option<&Arc<Member>> {
        self.primaries.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    fn covers_all(&self) -> bool {
        self.owners.iter().all(|owner| *owner != NOBODY)
    }

    fn set_owner(&mut self, slot: u16, member: &Arc<Member>) {
        let index = self.index_of(member);
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = index;
        }
    }

    fn add_replica(&mut self, primary: &Arc<Member>, replica: Arc<Member>) {
        let of = self.index_of(primary);
        // Each of its primary's ranges names it.
        if !self.replicas.iter().any(|(known_of, known)| *known_of == of && Arc::ptr_eq(known, &replica)) {
            self.replicas.push((of, replica));
        }
    }

    /// Where a primary is in the list, of which there are no more than slots.
    fn index_of(&mut self, primary: &Arc<Member>) -> u16 {
        let known = self.primaries.iter().position(|known| Arc::ptr_eq(known, primary));
        let index = known.unwrap_or_else(|| {
            self.primaries.push(primary.clone());
            self.primaries.len() - 1
        });
        u16::try_from(index).unwrap_or(NOBODY)
    }
}

impl Cluster {
    /// Begins to connect. With `wait_by`, also waits until a cluster that serves all slots answers.
    pub(crate) async fn start(way: &Way, settings: &Settings, wait_by: Option<Instant>) -> Result<Self, Error> {
        if wait_by.is_some() {
            check_seeds(way, settings).await?;
        }
        let shared = Arc::new(Shared {
            way: way.clone(),
            settings: *settings,
            table: ArcSwap::from_pointee(Table::empty()),
            members: Mutex::default(),
            look: Notify::new(),
            lost: Absence::default(),
            unowned: Absence::default(),
            left_out: Mutex::default(),
        });
        shared.add_seeds()?;
        let looks = AbortOnDrop(tokio::spawn(look_after(shared.clone())));
        let cluster = Self { shared, _looks: looks, compares: OnceLock::new() };
        if let Some(by) = wait_by {
            cluster.served(by).await?;
        }
        Ok(cluster)
    }

    /// Waits until all slots are served. A server that is away does not keep those of the others from being used.
    async fn served(&self, by: Instant) -> Result<(), Error> {
        loop {
            let table = self.shared.table.load_full();
            let covered = table.covers_all();
            let away: Vec<_> = table.primaries.iter().filter(|primary| !primary.is_well()).collect();
            if covered && away.is_empty() {
                return Ok(());
            }
            if Instant::now() >= by {
                if !covered || away.len() == table.primaries.len() {
                    return Err(self.shared.what_is_missing().await);
                }
                let away = away.iter().map(|primary| primary.address.to_string()).collect::<Vec<_>>().join(", ");
                tracing::warn!(redis = away, "some servers of the Redis Cluster do not answer yet");
                return Ok(());
            }
            self.shared.look.notify_one();
            tokio::time::sleep(SOON / 5).await;
        }
    }

    pub(crate) async fn send(&self, ask: &Ask<'_>, by: Instant) -> Result<Answer, Failure> {
        let shared = &*self.shared;
        let slot = redis_keyslot(ask.key);
        let mut patience = Patience::new(by, shared.settings.deadline);
        let (mut hops, mut sent_to) = (0, None);
        loop {
            let way = sent_to.take().or_else(|| Some((shared.table.load().owner(slot)?.clone(), false)));
            let Some((member, asking)) = way else {
                shared.look.notify_one();
                if patience.wait(&shared.unowned).await {
                    continue;
                }
                return Err(Failure::NotSent(Some("no server of the cluster is known to have this key's slot".into())));
            };
            let answer = match member.gated.load(Ordering::Relaxed) {
                true => Err(Failure::NotSent(Some("the cluster is down, or this server is another's".into()))),
                false => member.node.send(ask, asking, by).await,
            };
            let failure = match answer {
                Ok(answer) => {
                    member.absence.over();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if is_news(&failure) {
                shared.look.notify_one();
            }
            let failure = match failure {
                Failure::Elsewhere(elsewhere) => match shared.follow(&member, &elsewhere, slot) {
                    Some(there) if hops < HOPS => {
                        hops += 1;
                        sent_to = Some((there, elsewhere.once));
                        continue;
                    }
                    _ => Failure::NotSent(Some("the cluster's servers disagree about who has this key's slot".into())),
                },
                failure => failure,
            };
            let again = match &failure {
                Failure::NotSent(_) => true,
                Failure::Lost(_) => ask.may_run_twice(),
                Failure::Refused("LOADING" | "MASTERDOWN" | "READONLY" | "TRYAGAIN") => true,
                Failure::Refused("CLUSTERDOWN") => {
                    member.gated.store(true, Ordering::Relaxed);
                    // It may have run: fred tells everybody so whose command was under way.
                    ask.may_run_twice()
                }
                _ => false,
            };
            if !again || !patience.wait(&member.absence).await {
                return Err(failure);
            }
            // A server that others send us to may not be connected yet, and those who disagreed may agree by now.
            hops = 0;
        }
    }

    /// What a replica has that is at most so far behind.
    pub(crate) async fn load_near(&self, ask: &Ask<'_>, behind: Duration, by: Instant) -> Option<Pairs> {
        self.compares.get_or_init(|| AbortOnDrop(tokio::spawn(compare_replicas(self.shared.clone()))));
        let owner = self.shared.table.load().owner(redis_keyslot(ask.key))?.clone();
        owner.readers.load(ask, behind, by).await
    }

    /// Any server's time.
    pub(crate) async fn time(&self, by: Instant) -> Result<Time, Failure> {
        let mut patience = Patience::new(by, self.shared.settings.deadline);
        loop {
            let table = self.shared.table.load_full();
            if let Some(member) = table.primaries.iter().find(|primary| primary.is_well()) {
                match member.node.time(by).await {
                    Err(Failure::NotSent(_)) => {}
                    answer => {
                        let time = answer?;
                        self.shared.lost.over();
                        self.shared.begin_to_tell_time_by(member);
                        return Ok(self.now().unwrap_or(time));
                    }
                }
            }
            self.shared.look.notify_one();
            if !patience.wait(&self.shared.lost).await {
                return Err(Failure::NotSent(Some("no server of the cluster answers".into())));
            }
        }
    }

    pub(crate) fn now(&self) -> Option<Time> {
        self.shared.table.load().clock.now()
    }

    pub(crate) fn by_clock_of(&self, key: &Bytes, moment: Time) -> Time {
        let table = self.shared.table.load();
        let owner = table.owner(redis_keyslot(key));
        owner.map_or(moment, |owner| table.clock.by_clock(owner.node.clock(), moment))
    }

    pub(crate) fn doubt(&self) {
        for primary in &self.shared.table.load().primaries {
            primary.node.doubt();
            primary.readers.doubt();
        }
    }

    pub(crate) fn listening_post(&self, now: Option<&Target>) -> Option<Arc<Target>> {
        let table = self.shared.table.load();
        let well = || table.primaries.iter().filter(|primary| primary.is_well()).map(|primary| &primary.target);
        well().find(|target| Some(target.place()) == now.map(Target::place)).or_else(|| well().next()).cloned()
    }

    pub(crate) fn statuses(&self) -> Vec<ServerStatus> {
        let table = self.shared.table.load();
        let status = |member: Arc<Member>| {
            let is_primary = table.primaries.iter().any(|primary| Arc::ptr_eq(primary, &member));
            let reader = member.reader.get().and_then(|reader| reader.as_deref()).map(Reader::node);
            let is_well = member.is_well();
            ServerStatus { is_well, ..ServerStatus::of(&member.node, reader, is_primary) }
        };
        self.shared.members().into_iter().map(status).collect()
    }

    /// The servers that have slots.
    pub(crate) fn primaries(&self) -> Result<Vec<(String, Arc<Node>)>, Failure> {
        let table = self.shared.table.load();
        let owners: BTreeSet<_> = table.owners.iter().map(|owner| usize::from(*owner)).collect();
        let primaries = owners.into_iter().filter_map(|owner| table.primaries.get(owner));
        let primaries: Vec<_> = primaries.map(|primary| (primary.address.to_string(), primary.node.clone())).collect();
        match primaries.is_empty() {
            true => Err(Failure::NotSent(Some("no server of the cluster is known to have slots".into()))),
            false => Ok(primaries),
        }
    }
}

impl Shared {
    fn add_seeds(&self) -> Result<(), Error> {
        self.way.seeds.iter().try_for_each(|seed| self.member(seed).map(drop))
    }

    /// The server there, which may be a new one.
    fn member(&self, address: &Address) -> Result<Arc<Member>, Error> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.get(address) {
            return Ok(member.clone());
        }
        let target = Arc::new(self.way.target.at(address)?);
        let node = Arc::new(Node::start(&target, &self.settings)?);
        let member = Arc::new(Member {
            address: address.clone(),
            target,
            node,
            gated: AtomicBool::new(false),
            uncovered: Mutex::default(),
            absence: Absence::default(),
            wanted: Mutex::new(Instant::now()),
            readers: Readers::default(),
            reader: OnceLock::new(),
        });
        members.insert(address.clone(), member.clone());
        Ok(member)
    }

    /// As [`member`](Self::member), of a server that another one announced.
    fn announced(&self, address: &Address) -> Option<Arc<Member>> {
        let told = |error| {
            if self.left_out.lock().unwrap_or_else(PoisonError::into_inner).insert(address.clone()) {
                tracing::error!(target: "redis_session", "a server of the cluster is left out: {error}");
            }
        };
        self.member(&self.way.reached_at(address)).map_err(told).ok()
    }

    /// Unless the time is told by another one already: the table may be older than every server's first word of it.
    fn begin_to_tell_time_by(&self, member: &Member) {
        if !self.table.load().clock.is_known() {
            self.table.rcu(|table| {
                let mut table = Table::clone(table);
                if !table.clock.is_known() {
                    table.clock = member.node.clock().clone();
                }
                table
            });
        }
    }

    /// Goes where `MOVED` or `ASK` points to.
    fn follow(&self, from: &Member, elsewhere: &Elsewhere, slot: u16) -> Option<Arc<Member>> {
        let host = elsewhere.host.as_ref().unwrap_or(&from.address.host);
        let there = self.announced(&Address::new(host.clone(), elsewhere.port))?;
        *there.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let is_known = |table: &Table| table.owner(slot).is_some_and(|owner| Arc::ptr_eq(owner, &there));
        if !elsewhere.once && !is_known(&self.table.load()) {
            self.table.rcu(|table| {
                let mut table = Table::clone(table);
                table.set_owner(slot, &there);
                table
            });
        }
        Some(there)
    }

    /// Asks all servers, and believes the one with the newest word, if it is of the same cluster and not older than what was
    /// believed before, or the cluster may have been made anew and most say so. Tells whether all is well.
    async fn refresh(&self, may_be_rebuilt: bool) -> bool {
        let members = self.members();
        let by = Instant::now() + ANSWER;
        // Only its own word opens a gate, or gives it back a slot, however late it comes; and most are more than the first.
        let all = may_be_rebuilt || members.iter().any(|member| member.is_to_be_heard());
        let others = if all { ANSWER } else { OTHERS };
        let asked = members.iter().map(async |member| Some((member, member.view(by).await.ok()?)));
        let views = gather(others, asked).await;
        let table = self.table.load_full();
        for (member, view) in &views {
            let is_ours = view.is_of(&table.ids);
            if view.ok || !is_ours {
                member.gated.store(!is_ours, Ordering::Relaxed);
            }
            *member.uncovered() = view.uncovered();
        }
        members.iter().for_each(|member| member.absence.looked(member.is_well()));
        let said: Vec<_> = views.into_iter().map(|(member, view)| (&member.address, view)).collect();
        let best = heard(&said, &table.ids, &self.way.seeds, may_be_rebuilt);
        if let Some(view) = best {
            let primaries: BTreeSet<_> = view.ranges.iter().map(|range| self.way.reached_at(&range.primary)).collect();
            let believed = view.is_of(&table.ids).then_some(table.epoch);
            if counts(view, &primaries, &said, believed, may_be_rebuilt) {
                self.take_over(view);
            } else if may_be_rebuilt {
                // They may be others than before.
                view.ranges.iter().for_each(|range| drop(self.announced(&range.primary)));
            }
        }
        if best.is_none() && self.add_seeds().is_err() {
            return false;
        }
        let table = self.table.load();
        self.lost.looked(table.primaries.iter().any(|primary| primary.is_well()));
        self.unowned.looked(table.covers_all());
        best.is_some_and(|best| best.epoch >= table.epoch) && table.primaries.iter().all(|primary| primary.is_well())
    }

    /// Makes a table of what a server says.
    fn take_over(&self, view: &View) {
        let old = self.table.load();
        let mut table = Table { epoch: view.epoch, ids: view.ids.clone(), ..Table::empty() };
        for range in &view.ranges {
            let replicas: Vec<_> = range.replicas.iter().filter_map(|replica| self.announced(replica)).collect();
            let Some(primary) = self.announced(&range.primary) else { continue };
            let uncovered = primary.uncovered();
            let slots = (range.first..=range.last).filter(|slot| !uncovered.contains(slot));
            slots.for_each(|slot| table.set_owner(slot, &primary));
            replicas.into_iter().for_each(|replica| table.add_replica(&primary, replica));
        }
        // The clock of a server that is still there stays: time must not jump with every table.
        let clocks = || table.primaries.iter().map(|primary| primary.node.clock());
        let stays = old.clock.is_known() && clocks().any(|clock| Arc::ptr_eq(clock, &old.clock));
        let known = clocks().find(|clock| clock.is_known());
        table.clock = known.filter(|_| !stays).unwrap_or(&old.clock).clone();
        let is_in = |member: &Arc<Member>| {
            let replicas = table.replicas.iter().map(|(_, replica)| replica);
            table.primaries.iter().chain(replicas).any(|known| Arc::ptr_eq(known, member))
        };
        // Seeds may be other names of servers that are in it; they go once one of those answers. A new server has no slots
        // yet, and is in no table.
        let is_served = table.primaries.iter().any(|primary| primary.node.is_well());
        let stays = |member: &Arc<Member>| match self.way.seeds.contains(&member.address) {
            true => !is_served,
            false => member.wanted.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < EVERY,
        };
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|_, member| is_in(member) || stays(member));
        drop(members);
        self.table.store(Arc::new(table));
    }

    /// Why a cluster cannot be used at start.
    async fn what_is_missing(&self) -> Error {
        let members = self.members();
        let (mut newest, mut refused): (Option<View>, _) = (None, None);
        let age = |view: &View| (view.epoch, view.uncovered().len());
        let by = Instant::now() + ANSWER;
        for member in &members {
            match member.view(by).await {
                Ok(view) if newest.as_ref().is_none_or(|newest| age(newest) < age(&view)) => newest = Some(view),
                Err(Failure::Refused(word)) => refused = Some((word, &member.address)),
                _ => {}
            }
        }
        let (kind, text) = match (newest, refused) {
            (Some(view), _) if !view.uncovered().is_empty() => {
                let uncovered = view.uncovered().len();
                let text = format!(
                    "the Redis Cluster does not cover its slots: {uncovered} of {SLOTS} belong to no server; \
                     `redis-cli --cluster fix` can mend that"
                );
                (Kind::Unavailable, text)
            }
            (Some(view), _) if !view.ok => {
                (Kind::Unavailable, "the Redis Cluster says that it is down (cluster_state:fail)".to_owned())
            }
            (Some(view), _) => return self.what_is_wrong_with(&view).await,
            (None, Some(("ERR", address))) => {
                let redis = self.way.target.scheme();
                (Kind::Config, format!("Redis at {address} is no server of a cluster: write {redis}://{address}"))
            }
            (None, Some((word, address))) => {
                let text = format!(
                    "Redis at {address} does not say who is in its cluster ({word}): its user needs \
                     +cluster|info +cluster|slots"
                );
                (Kind::Config, text)
            }
            (None, None) => (Kind::Unavailable, "no server of the Redis Cluster answered in time".to_owned()),
        };
        Error::new(kind, text)
    }

    /// Why the primaries that are announced do not answer there, as the first of them shows.
    async fn what_is_wrong_with(&self, view: &View) -> Error {
        let primaries: BTreeSet<_> = view.ranges.iter().map(|range| range.primary.to_string()).collect();
        let text = format!(
            "the servers of the Redis Cluster cannot be reached where they announce themselves ({}): let them announce \
             other addresses (cluster-announce-ip), or translate them with `map_address`",
            Vec::from_iter(primaries).join(", ")
        );
        let settings = Settings { connect_deadline: ANSWER, ..self.settings };
        let targets = view.ranges.iter().map(|range| self.way.target.at(&self.way.reached_at(&range.primary)));
        match any(targets.take(1).map(async |target| probe(&target?, &settings, "TIME").await)).await {
            Err(error) if error.is_config() => error,
            Err(error) => Error::caused(Kind::Unavailable, text, error),
            Ok(()) => Error::new(Kind::Unavailable, text),
        }
    }

    fn members(&self) -> Vec<Arc<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// The newest word of the cluster whose servers are called so; where none of it serves, and it may have been made anew, that of
/// the seeds, since any other address may be somebody else's by now.
fn heard<'a>(
    said: &'a [(&Address, View)],
    ids: &BTreeSet<Bytes>,
    seeds: &[Address],
    may_be_rebuilt: bool,
) -> Option<&'a View> {
    let ours = newest(said, |_, view| view.is_of(ids));
    ours.or_else(|| newest(said, |who, _| may_be_rebuilt && seeds.contains(who)))
}

/// The newest word of those that serve and are asked for; of the same age, that of most.
fn newest<'a>(said: &'a [(&Address, View)], of: impl Fn(&Address, &View) -> bool) -> Option<&'a View> {
    let votes = |view: &View| said.iter().filter(|(_, other)| other.says_the_same(view)).count();
    let asked_for = said.iter().filter(|(who, view)| view.ok && of(who, view)).map(|(_, view)| view);
    asked_for.max_by_key(|view| (view.epoch, votes(view)))
}

/// Whether a word counts: it is as new as what was believed before (`None`: of another cluster), or the cluster may have been
/// made anew and most of the primaries that it names say the same. One that was cut off from the others does not know that
/// they went on without it.
fn counts(
    view: &View,
    primaries: &BTreeSet<Address>,
    said: &[(&Address, View)],
    believed: Option<u64>,
    may_be_rebuilt: bool,
) -> bool {
    let same = || said.iter().filter(|(who, said)| primaries.contains(*who) && said.ok && said.says_the_same(view));
    believed.is_some_and(|believed| view.epoch >= believed) || may_be_rebuilt && same().count() * 2 > primaries.len()
}

/// Looks after the table for ever.
async fn look_after(shared: Arc<Shared>) {
    let mut ill_since: Option<Instant> = None;
    loop {
        let ill = ill_since.map(|since| since.elapsed());
        // A cluster that was made anew begins at a low epoch.
        let well = shared.refresh(ill.is_some_and(|ill| ill > REBUILT)).await;
        let every = match ill {
            _ if well => EVERY,
            Some(ill) if ill >= LONG => LATER,
            _ => SOON,
        };
        ill_since = if well { None } else { ill_since.or_else(|| Some(Instant::now())) };
        // Not more often, whatever is asked for: what comes in between is looked at together.
        tokio::time::sleep(SOON).await;
        if well {
            let _ = tokio::time::timeout(every, shared.look.notified()).await;
        } else {
            tokio::time::sleep(every - SOON).await;
        }
    }
}

/// Compares the replicas of all primaries with them for ever.
async fn compare_replicas(shared: Arc<Shared>) {
    loop {
        let table = shared.table.load_full();
        let compares = (0..).zip(&table.primaries).map(|(index, primary)| {
            let replicas = table.replicas.iter().filter(|(of, _)| *of == index);
            let readers = replicas.filter_map(|(_, replica)| replica.reader(&shared.settings)).collect();
            primary.readers.compare(&primary.node, readers)
        });
        join_all(compares).await;
        tokio::time::sleep(replicas::EVERY).await;
    }
}

/// Tells what is wrong with the seeds, if none of them answers.
async fn check_seeds(way: &Way, settings: &Settings) -> Result<(), Error> {
    let targets = way.seeds.iter().map(|seed| way.target.at(seed)).collect::<Result<Vec<_>, _>>()?;
    any(targets.iter().map(|target| probe(target, settings, "TIME"))).await
}

#[cfg(test)]
mod tests {
    use super::super::slots::Range;
    use super::*;

    fn at(port: u16) -> Address {
        Address::new("h", port)
    }

    /// Who says what: a server, whether it serves, its epoch, and the primaries of three parts of the slots.
    fn said(all: &[(u16, bool, u64, [u16; 3])]) -> Vec<(Address, View)> {
        let range = |(part, port): (u16, &u16)| {
            let (first, last) = (part * 5000, part * 5000 + 4999);
            Range { first, last, primary: at(*port), replicas: Vec::new() }
        };
        let view = |(who, ok, epoch, primaries): &(u16, bool, u64, [u16; 3])| {
            let ranges = (0..).zip(primaries).map(range).collect();
            (at(*who), View { ok: *ok, epoch: *epoch, ranges, ids: BTreeSet::new() })
        };
        all.iter().map(view).collect()
    }

    fn by(said: &[(Address, View)]) -> Vec<(&Address, View)> {
        said.iter().map(|(who, view)| (who, view.clone())).collect()
    }

    #[test]
    fn the_newest_word_of_those_that_serve_counts_and_of_the_same_age_that_of_most() {
        const OLD: [u16; 3] = [1, 2, 3];
        const NEW: [u16; 3] = [4, 2, 3];
        let table: [(&[_], Option<(u64, u16)>); 6] = [
            (&[(1, true, 7, OLD), (2, true, 8, NEW), (3, true, 7, OLD)], Some((8, 4))),
            (&[(2, true, 8, NEW), (1, true, 7, OLD)], Some((8, 4))),
            (&[(1, true, 8, OLD), (2, true, 8, NEW), (3, true, 8, NEW)], Some((8, 4))),
            (&[(2, true, 8, NEW), (3, true, 8, NEW), (1, true, 8, OLD)], Some((8, 4))),
            // One that serves nobody was perhaps cut off.
            (&[(1, false, 9, OLD), (2, true, 8, NEW)], Some((8, 4))),
            (&[(1, false, 9, OLD)], None),
        ];
        for (words, wanted) in table {
            let said = said(words);
            let by = by(&said);
            let found = newest(&by, |_, _| true).map(|view| (view.epoch, view.ranges[0].primary.port));
            assert_eq!(found, wanted, "{words:?}");
        }
    }

    #[test]
    fn another_clusters_word_is_heard_only_of_a_seed_where_ours_may_be_made_anew_and_none_of_it_serves() {
        // Who says it, a seed being at 1; whether he serves, his epoch, and what he calls a server.
        type Said = (u16, bool, u64, &'static str);
        type Case = (&'static [&'static str], &'static [Said], [Option<u64>; 2]);
        let table: [Case; 7] = [
            (&["a", "b"], &[(2, true, 3, "a"), (3, true, 9, "z")], [Some(3); 2]),
            (&["a", "b"], &[(2, true, 3, "b"), (1, true, 9, "z")], [Some(3); 2]),
            (&["a", "b"], &[(3, true, 9, "z")], [None; 2]),
            (&["a", "b"], &[(1, true, 9, "z"), (3, true, 10, "y")], [None, Some(9)]),
            (&["a", "b"], &[(2, false, 3, "a"), (1, true, 9, "z")], [None, Some(9)]),
            (&["a", "b"], &[(1, false, 9, "z")], [None; 2]),
            // None is known yet.
            (&[], &[(1, true, 3, "a")], [Some(3); 2]),
        ];
        for (known, words, wanted) in table {
            let ids = |all: &[&'static str]| all.iter().map(|id| Bytes::from_static(id.as_bytes())).collect();
            let view = |(who, ok, epoch, id): &Said| {
                (at(*who), View { ok: *ok, epoch: *epoch, ranges: Vec::new(), ids: ids(&[*id]) })
            };
            let said: Vec<_> = words.iter().map(view).collect();
            let by = by(&said);
            let heard = |rebuilt| heard(&by, &ids(known), &[at(1)], rebuilt).map(|view| view.epoch);
            assert_eq!([heard(false), heard(true)], wanted, "{words:?}");
        }
    }

    #[test]
    fn an_older_word_counts_only_if_the_cluster_may_be_made_anew_and_most_of_its_primaries_say_so() {
        const ALL: [u16; 3] = [1, 2, 3];
        let table: [(&[_], bool); 7] = [
            (&[(1, true, 3, ALL), (2, true, 3, ALL), (3, true, 3, ALL)], true),
            (&[(1, true, 3, ALL), (2, true, 3, ALL)], true),
            (&[(1, true, 3, ALL)], false),
            // Its replicas are cut off with it.
            (&[(1, true, 3, ALL), (7, true, 3, ALL), (8, true, 3, ALL)], false),
            (&[(1, true, 3, ALL), (2, true, 2, ALL)], false),
            (&[(1, true, 3, ALL), (2, true, 3, [1, 2, 4])], false),
            (&[(1, true, 3, ALL), (2, false, 3, ALL)], false),
        ];
        for (words, of_most) in table {
            let said = said(words);
            let counts = |believed, rebuilt| counts(&said[0].1, &ALL.map(at).into(), &by(&said), believed, rebuilt);
            assert_eq!(counts(Some(4), true), of_most, "{words:?}");
            assert!(counts(Some(3), false) && counts(Some(2), false) && !counts(Some(4), false), "{words:?}");
            // However new another cluster's is.
            assert_eq!(counts(None, true), of_most, "{words:?}");
            assert!(!counts(None, false), "{words:?}");
        }
    }
}
