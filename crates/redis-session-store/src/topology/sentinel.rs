//! The way to the primary that Sentinels name.
//!
//! A Sentinel announces a promotion only with its next look at the promoted server, up to a second later, and until then
//! the old primary goes on answering writes that are lost afterwards. So while a failover is under way, the replicas
//! themselves are asked whether one of them is the primary now. What they say holds for a while only: if the failover
//! was given up, the Sentinels' word counts again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis_session_core::{Error, Kind, Time};
use tokio::sync::Notify;

use super::patience::{Absence, Patience};
use super::replicas::{self, Reader, Readers};
use super::{ANSWER, OTHERS, any, gather, is_news};
use crate::node::{AbortOnDrop, Answer, Ask, Node};
use crate::server::{Failure, Pairs, Reply};
use crate::status::ServerStatus;
use crate::subscription::{Heard, Subscription};
use crate::target::{Address, Settings, Target, Way, probe};

/// How often the Sentinels are asked while all is well.
const EVERY: Duration = Duration::from_secs(1);
/// How often while the primary is away.
const SOON: Duration = Duration::from_millis(50);
/// How often replicas are asked who they are while a failover is under way, and for how long.
const HUNT_EVERY: Duration = Duration::from_millis(10);
const HUNT: Duration = Duration::from_secs(3);
/// For how long a promoted server is believed against the Sentinels' older word.
const PROVISIONAL: Duration = Duration::from_secs(3);
/// After so long of naming others than before, most of the Sentinels are believed whatever their epoch: their memory was made
/// anew.
const REMADE: Duration = Duration::from_secs(15);
/// What Sentinels tell that changes the way, or soon will.
const CHANNELS: [&str; 6] = [
    "+switch-master",
    "+promoted-slave",
    "+failover-state-select-slave",
    "+failover-state-send-slaveof-noone",
    "+failover-state-wait-promotion",
    "+failover-end",
];

/// The Sentinels of one primary.
pub(crate) struct Sentinels {
    shared: Arc<Shared>,
    _looks: AbortOnDrop<()>,
    /// Compares replicas with the primary, from the first read of a replica on.
    compares: OnceLock<AbortOnDrop<()>>,
}

struct Shared {
    way: Way,
    name: String,
    settings: Settings,
    primary: ArcSwapOption<Server>,
    state: Mutex<State>,
    /// Wakes who looks after the way.
    look: Notify,
    /// Of a primary that is not known.
    lost: Absence,
}

#[derive(Default)]
struct State {
    sentinels: BTreeMap<Address, Arc<Sentinel>>,
    /// The primary and its replicas: connected, so that one that takes over answers at once.
    servers: BTreeMap<Address, Arc<Server>>,
    /// The highest `config-epoch` that was believed.
    epoch: u64,
    /// Until when, and against which epoch, a promoted server is believed.
    provisional: Option<(Instant, u64)>,
    /// Until when a failover is expected to end.
    hunt: Option<Instant>,
    /// Since when Sentinels name others than the one that is believed. `None`: they do not.
    disagreed: Option<Instant>,
    /// Addresses that were left out, and told of once.
    left_out: BTreeSet<Address>,
}

impl State {
    /// How many Sentinels have answered so far. One that is named by host and by address counts once, and one that cannot be
    /// reached from here does not: it has no vote.
    fn known(&self) -> usize {
        self.sentinels.values().filter_map(|sentinel| sentinel.others().clone()).collect::<BTreeSet<_>>().len()
    }

    /// Whether the Sentinels' memory may have been made anew.
    fn may_be_remade(&self) -> bool {
        self.disagreed.is_some_and(|since| since.elapsed() > REMADE)
    }

    /// Unless a promoted server was found already: the old primary calls itself one for a while yet.
    fn begin_to_hunt(&mut self) {
        if self.provisional.is_none() {
            self.hunt.get_or_insert_with(|| Instant::now() + HUNT);
        }
    }
}

/// A server with keys.
struct Server {
    address: Address,
    target: Arc<Target>,
    node: Arc<Node>,
    absence: Absence,
    /// Whether it called itself a replica since it was last the primary: only such a one can have been promoted. An old
    /// primary that comes back calls itself a primary as well.
    was_replica: AtomicBool,
    /// As the primary: its replicas.
    readers: Readers,
    /// As a replica.
    reader: Arc<Reader>,
}

struct Sentinel {
    node: Node,
    /// Whom it knew when it answered last. `None`: it never did.
    others: Mutex<Option<Others>>,
    _hears: Subscription,
}

/// The ids of the other Sentinels that one knows. It tells one from another, whatever addresses lead to it: it is the only one
/// that is not among them.
type Others = BTreeSet<String>;

/// What one Sentinel says.
#[derive(Debug)]
struct View {
    primary: Address,
    epoch: u64,
    /// A failover is under way, and no replica was promoted as far as this Sentinel knows.
    fails_over: bool,
    replicas: Vec<Address>,
    sentinels: Vec<Address>,
    others: Others,
}

impl Sentinels {
    /// Begins to connect. With `wait_by`, also waits until the primary answers.
    pub(crate) async fn start(
        way: &Way,
        name: &str,
        settings: &Settings,
        wait_by: Option<Instant>,
    ) -> Result<Self, Error> {
        if wait_by.is_some() {
            let targets = way.seeds.iter().map(|seed| way.sentinel_at(seed)).collect::<Result<Vec<_>, _>>()?;
            any(targets.iter().map(|target| probe(target, settings, "PING"))).await?;
        }
        let shared = Arc::new(Shared {
            way: way.clone(),
            name: name.to_owned(),
            settings: *settings,
            primary: ArcSwapOption::empty(),
            state: Mutex::default(),
            look: Notify::new(),
            lost: Absence::default(),
        });
        for seed in &way.seeds {
            Shared::add_sentinel(&shared, seed)?;
        }
        let looks = AbortOnDrop(tokio::spawn(look_after(shared.clone())));
        let sentinels = Self { shared, _looks: looks, compares: OnceLock::new() };
        if let Some(by) = wait_by {
            sentinels.named(by).await?;
        }
        Ok(sentinels)
    }

    /// Waits until the primary answers.
    async fn named(&self, by: Instant) -> Result<(), Error> {
        loop {
            if self.shared.primary.load().as_ref().is_some_and(|primary| primary.node.is_well()) {
                return Ok(());
            }
            if Instant::now() >= by {
                return Err(self.shared.what_is_missing().await);
            }
            self.shared.look.notify_one();
            tokio::time::sleep(SOON / 5).await;
        }
    }

    pub(crate) async fn send(&self, ask: &Ask<'_>, by: Instant) -> Result<Answer, Failure> {
        let shared = &*self.shared;
        let mut patience = Patience::new(by, shared.settings.deadline);
        loop {
            let Some(primary) = shared.primary.load_full() else {
                shared.look.notify_one();
                if patience.wait(&shared.lost).await {
                    continue;
                }
                return Err(shared.why_there_is_none());
            };
            let failure = match primary.node.send(ask, false, by).await {
                Ok(answer) => {
                    primary.absence.over();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if is_news(&failure) {
                shared.look.notify_one();
            }
            let again = match failure {
                Failure::NotSent(_) | Failure::Refused("LOADING" | "MASTERDOWN" | "READONLY") => true,
                Failure::Lost(_) => ask.may_run_twice(),
                _ => false,
            };
            if !again || !patience.wait(&primary.absence).await {
                return Err(failure);
            }
        }
    }

    /// What a replica has that is at most so far behind.
    pub(crate) async fn load_near(&self, ask: &Ask<'_>, behind: Duration, by: Instant) -> Option<Pairs> {
        self.compares.get_or_init(|| AbortOnDrop(tokio::spawn(compare_replicas(self.shared.clone()))));
        let primary = self.shared.primary.load_full()?;
        primary.readers.load(ask, behind, by).await
    }

    pub(crate) async fn time(&self, by: Instant) -> Result<Time, Failure> {
        let mut patience = Patience::new(by, self.shared.settings.deadline);
        loop {
            let primary = self.shared.primary.load_full();
            if let Some(primary) = &primary {
                match primary.node.time(by).await {
                    Err(Failure::NotSent(_)) => {}
                    answer => return answer,
                }
            }
            self.shared.look.notify_one();
            if !patience.wait(primary.as_ref().map_or(&self.shared.lost, |primary| &primary.absence)).await {
                return Err(match primary {
                    Some(_) => Failure::NotSent(Some("the primary does not answer".into())),
                    None => self.shared.why_there_is_none(),
                });
            }
        }
    }

    pub(crate) fn now(&self) -> Option<Time> {
        self.shared.primary.load().as_ref()?.node.clock().now()
    }

    pub(crate) fn doubt(&self) {
        if let Some(primary) = &*self.shared.primary.load() {
            primary.node.doubt();
            primary.readers.doubt();
        }
    }

    pub(crate) fn listening_post(&self) -> Option<Arc<Target>> {
        self.shared.primary.load().as_ref().map(|primary| primary.target.clone())
    }

    /// Of the primary and its replicas.
    pub(crate) fn statuses(&self) -> Vec<ServerStatus> {
        let primary = self.shared.primary.load_full();
        let is_primary = |server: &Arc<Server>| primary.as_ref().is_some_and(|primary| Arc::ptr_eq(primary, server));
        let servers: Vec<_> = self.shared.state().servers.values().cloned().collect();
        servers.iter().map(|server| ServerStatus::of(&server.node, None, is_primary(server))).collect()
    }

    pub(crate) fn primary(&self) -> Result<(String, Arc<Node>), Failure> {
        let primary = self.shared.primary.load_full();
        let primary = primary.ok_or_else(|| self.shared.why_there_is_none())?;
        Ok((primary.address.to_string(), primary.node.clone()))
    }
}

impl Shared {
    /// Begins to ask a Sentinel, and to hear what it tells, unless it is known already.
    fn add_sentinel(shared: &Arc<Self>, address: &Address) -> Result<(), Error> {
        let mut state = shared.state();
        if state.sentinels.contains_key(address) {
            return Ok(());
        }
        let target = shared.way.sentinel_at(address)?;
        let tell = {
            let shared = Arc::downgrade(shared);
            move |heard: Heard<'_>| {
                let Some(shared) = shared.upgrade() else { return };
                if let Heard::Message(channel, text) = heard
                    && names(text, &shared.name)
                    && channel.starts_with("+failover-state")
                {
                    shared.state().begin_to_hunt();
                }
                shared.look.notify_one();
            }
        };
        let channels = CHANNELS.map(str::to_owned).to_vec();
        let hears = Subscription::start(&target, &shared.settings, channels, tell)?;
        // One connection: where a name leads to one of several, the replies of a view must be of the same.
        let node = Node::start(&target, &Settings { clients: 1, ..shared.settings })?;
        let sentinel = Sentinel { node, others: Mutex::default(), _hears: hears };
        state.sentinels.insert(address.clone(), Arc::new(sentinel));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server that Sentinels announce at this address.
    fn server(&self, announced: &Address) -> Option<Arc<Server>> {
        let address = self.way.reached_at(announced);
        let mut state = self.state();
        if let Some(server) = state.servers.get(&address) {
            return Some(server.clone());
        }
        let started = self.way.target.at(&address).map(Arc::new).and_then(|target| {
            let node = Arc::new(Node::start(&target, &self.settings)?);
            Ok(Arc::new(Server {
                address: address.clone(),
                target,
                reader: Arc::new(Reader::new(node.clone())),
                node,
                absence: Absence::default(),
                was_replica: AtomicBool::new(false),
                readers: Readers::default(),
            }))
        });
        match started {
            Ok(server) => {
                state.servers.insert(address, server.clone());
                Some(server)
            }
            Err(error) => {
                if state.left_out.insert(address) {
                    tracing::error!(target: "redis_session", "a server that Sentinel names is left out: {error}");
                }
                None
            }
        }
    }

    /// Asks all Sentinels, and goes to the primary that the newest word names. Tells whether all is well.
    async fn refresh(self: &Arc<Self>) -> bool {
        let (views, strange) = {
            let said = self.views().await;
            of_ours(said, &self.state().servers.keys().cloned().collect(), &self.way)
        };
        for address in views.iter().flat_map(|view| &view.sentinels) {
            let address = self.way.reached_at(address);
            if let Err(error) = Self::add_sentinel(self, &address)
                && self.state().left_out.insert(address)
            {
                tracing::error!(target: "redis_session", "a Sentinel is left out: {error}");
            }
        }
        let replicas: Vec<_> =
            views.iter().flat_map(|view| &view.replicas).filter_map(|replica| self.server(replica)).collect();
        // What strange ones say counts for nothing but that the memory of all may have been made anew.
        let (strangers, strange): (Vec<_>, Vec<_>) = strange.into_iter().unzip();
        let ours = candidates(&views).into_iter().map(|candidate| (candidate, true));
        let candidates: Vec<_> =
            ours.chain(candidates(&strange).into_iter().map(|candidate| (candidate, false))).collect();
        let mut agreed = candidates.is_empty();
        for (candidate, is_ours) in candidates {
            let is_in_doubt = {
                let mut state = self.state();
                state.provisional = state.provisional.filter(|(until, _)| Instant::now() < *until);
                let remade = state.may_be_remade() && candidate.is_of_most(state.known());
                (candidate.epoch < state.epoch || !is_ours) && !remade
                    || state.provisional.is_some_and(|(_, against)| candidate.epoch <= against)
            };
            let Some(server) = (!is_in_doubt).then(|| self.server(&candidate.primary)).flatten() else { continue };
            // A dead one is not waited for: it has not become the primary.
            if server.node.is_well() && is_primary(&server.node).await {
                self.go_to(&server, candidate.epoch);
                agreed = true;
                break;
            }
        }
        {
            let mut state = self.state();
            state.disagreed = if agreed { None } else { state.disagreed.or_else(|| Some(Instant::now())) };
        }
        for replica in replicas.iter().filter(|replica| !replica.was_replica.load(Ordering::Relaxed)) {
            if replica.node.is_well() && role(&replica.node).await == Some(Role::Replica) {
                replica.was_replica.store(true, Ordering::Relaxed);
            }
        }
        if views.iter().any(|view| view.fails_over) {
            self.state().begin_to_hunt();
        }
        self.forget(&views, &strangers, &replicas);
        let primary = self.primary.load();
        let well = primary.as_ref().is_some_and(|primary| primary.node.is_well());
        if let Some(primary) = &*primary {
            primary.absence.looked(well);
        }
        well
    }

    /// Looks whether one of the replicas was promoted. Tells whether it is to be looked again.
    async fn hunt(&self) -> bool {
        let (servers, epoch) = {
            let mut state = self.state();
            let Some(until) = state.hunt else { return false };
            if Instant::now() >= until {
                state.hunt = None;
                return false;
            }
            (state.servers.values().cloned().collect::<Vec<_>>(), state.epoch)
        };
        let current = self.primary.load_full();
        let others = servers.iter().filter(|server| {
            current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, server))
                && server.was_replica.load(Ordering::Relaxed)
                && server.node.is_well()
        });
        let mut asked: FuturesUnordered<_> =
            others.map(async |server| is_primary(&server.node).await.then_some(server)).collect();
        while let Some(answer) = asked.next().await {
            if let Some(promoted) = answer {
                self.state().hunt = None;
                self.state().provisional = Some((Instant::now() + PROVISIONAL, epoch));
                tracing::info!(redis = %promoted.address, "a replica was promoted; sessions go there");
                self.switch(promoted);
                return false;
            }
        }
        true
    }

    fn go_to(&self, server: &Arc<Server>, epoch: u64) {
        {
            let mut state = self.state();
            state.epoch = epoch;
            state.provisional = None;
        }
        let is_there = self.primary.load().as_ref().is_some_and(|primary| Arc::ptr_eq(primary, server));
        if !is_there {
            tracing::info!(redis = %server.address, "Sentinel names this primary; sessions go there");
            self.state().hunt = None;
            self.switch(server);
        }
    }

    fn switch(&self, server: &Arc<Server>) {
        self.lost.over();
        server.absence.over();
        server.was_replica.store(false, Ordering::Relaxed);
        self.primary.store(Some(server.clone()));
    }

    /// Drops the connections to servers that no Sentinel names any more.
    fn forget(&self, views: &[View], strangers: &[Address], replicas: &[Arc<Server>]) {
        if views.is_empty() {
            return;
        }
        let named: Vec<_> = views.iter().map(|view| self.way.reached_at(&view.primary)).collect();
        let sentinels: Vec<_> =
            views.iter().flat_map(|view| &view.sentinels).map(|address| self.way.reached_at(address)).collect();
        let current = self.primary.load_full();
        let mut state = self.state();
        state.sentinels.retain(|address, sentinel| {
            let may_be_ours = sentinel.node.is_well() && !strangers.contains(address);
            self.way.seeds.contains(address) || sentinels.contains(address) || may_be_ours
        });
        state.servers.retain(|address, server| {
            named.contains(address)
                || replicas.iter().any(|replica| Arc::ptr_eq(replica, server))
                || current.as_ref().is_some_and(|current| Arc::ptr_eq(current, server))
        });
    }

    /// What each Sentinel says, by where it is reached.
    async fn views(&self) -> Vec<(Address, View)> {
        let (sentinels, others) = {
            let state = self.state();
            // Where most must say the same, each of them is waited for.
            let others = if state.may_be_remade() { ANSWER } else { OTHERS };
            (state.sentinels.clone(), others)
        };
        let by = Instant::now() + ANSWER;
        let asked = sentinels
            .into_iter()
            .map(async |(address, sentinel)| Some((address, sentinel.view(&self.name, by).await.ok()?)));
        gather(others, asked).await
    }

    /// Why nothing can be sent: of those that Sentinels name, none could be connected, or none calls itself a primary.
    fn why_there_is_none(&self) -> Failure {
        let servers: Vec<_> = self.state().servers.values().cloned().collect();
        if let Some(trouble) = servers.iter().find_map(|server| server.node.trouble()) {
            return Failure::NotSent(Some(trouble.into()));
        }
        let named = servers.iter().map(|server| server.address.to_string()).collect::<Vec<_>>().join(", ");
        let text = match named.as_str() {
            "" => "no Sentinel has named a primary yet".to_owned(),
            named => {
                format!("none of those that Sentinel names ({named}) calls itself a primary; its user needs +role")
            }
        };
        Failure::NotSent(Some(text.into()))
    }

    /// Why there is no primary at start.
    async fn what_is_missing(&self) -> Error {
        let sentinels: Vec<_> = self.state().sentinels.values().cloned().collect();
        let (name, by) = (&self.name, Instant::now() + ANSWER);
        for sentinel in sentinels {
            let (kind, text) = match sentinel.view(name, by).await {
                Err(Failure::Refused("ERR")) => {
                    (Kind::Config, sentinel.why_it_names_none(name, self.way.target.scheme(), by).await)
                }
                Err(Failure::Refused(word)) => (Kind::Config, format!("a Sentinel refuses to name \"{name}\": {word}")),
                Err(_) => continue,
                Ok(view) => return self.what_is_wrong_with(&view.primary).await,
            };
            return Error::new(kind, text);
        }
        Error::new(Kind::Unavailable, "no Sentinel answered in time")
    }

    /// Why the primary that is announced there is not taken for one.
    async fn what_is_wrong_with(&self, announced: &Address) -> Error {
        let name = &self.name;
        let text = format!(
            "the primary \"{name}\" that Sentinel names at {announced} does not answer as one; if it is reached at \
             another address than it announces, translate it with `map_address`"
        );
        let settings = Settings { connect_deadline: ANSWER, ..self.settings };
        let asked = match self.way.target.at(&self.way.reached_at(announced)) {
            Ok(target) => probe(&target, &settings, "ROLE").await,
            Err(error) => Err(error),
        };
        match asked {
            Err(error) if error.is_config() => error,
            Err(error) => Error::caused(Kind::Unavailable, text, error),
            Ok(()) => Error::new(Kind::Unavailable, text),
        }
    }
}

impl Sentinel {
    async fn ask(&self, words: &[&str], by: Instant) -> Result<Reply, Failure> {
        self.node.tell("SENTINEL", words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect(), by).await
    }

    async fn view(&self, name: &str, by: Instant) -> Result<View, Failure> {
        let of = async |what| self.ask(&[what, name], by).await;
        let (address, primary, replicas, sentinels) =
            tokio::join!(of("GET-MASTER-ADDR-BY-NAME"), of("MASTER"), of("REPLICAS"), of("SENTINELS"));
        let view = View::read(address?, primary?, replicas?, sentinels?).ok_or(Failure::Odd)?;
        *self.others() = Some(view.others.clone());
        Ok(view)
    }

    fn others(&self) -> MutexGuard<'_, Option<Others>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn why_it_names_none(&self, name: &str, redis: &str, by: Instant) -> String {
        match self.ask(&["MASTERS"], by).await {
            Ok(Reply::List(known)) => {
                let known: Vec<_> = known.into_iter().filter_map(|known| fields(known)?.remove("name")).collect();
                let known = if known.is_empty() { "none at all".to_owned() } else { known.join(", ") };
                format!(
                    "the Sentinels know no primary \"{name}\"; they know {known}: write {redis}-sentinel://host/name"
                )
            }
            // Its user may not ask which ones it knows.
            Err(Failure::Refused("NOPERM")) => format!("the Sentinels know no primary \"{name}\""),
            _ => format!(
                "what was given as a Sentinel is none: write {redis}://host for a single server, or the Sentinels' port"
            ),
        }
    }
}

impl View {
    fn read(address: Reply, primary: Reply, replicas: Reply, sentinels: Reply) -> Option<Self> {
        let Reply::List(address) = address else { return None };
        let Ok([Reply::Text(host), Reply::Text(port)]) = <[Reply; 2]>::try_from(address) else { return None };
        let host = String::from_utf8(host.into()).ok()?;
        let port: u16 = std::str::from_utf8(&port).ok()?.parse().ok()?;
        let (primary, sentinels) = (fields(primary)?, servers(sentinels)?);
        let is_under_way = primary.get("flags")?.split(',').any(|flag| flag == "failover_in_progress");
        // Here it is the old one until all replicas follow; the address above is the promoted one's before.
        let is_promoted = primary.get("ip") != Some(&host) || primary.get("port")?.parse() != Ok(port);
        Some(Self {
            primary: Address::new(host, port),
            epoch: primary.get("config-epoch")?.parse().ok()?,
            fails_over: is_under_way && !is_promoted,
            replicas: addresses(&servers(replicas)?),
            sentinels: addresses(&sentinels),
            others: sentinels.iter().filter_map(|sentinel| sentinel.get("runid").cloned()).collect(),
        })
    }
}

/// What Sentinel says of a server.
type About = BTreeMap<String, String>;

/// Names and values, one after the other.
fn fields(reply: Reply) -> Option<About> {
    let Reply::List(parts) = reply else { return None };
    let text = |part| match part {
        Reply::Text(text) => String::from_utf8(text.into()).ok(),
        _ => None,
    };
    let mut parts = parts.into_iter();
    let mut fields = BTreeMap::new();
    while let Some(name) = parts.next() {
        fields.insert(text(name)?, text(parts.next()?)?);
    }
    Some(fields)
}

fn servers(reply: Reply) -> Option<Vec<About>> {
    let Reply::List(servers) = reply else { return None };
    servers.into_iter().map(fields).collect()
}

/// Those of servers that are there.
fn addresses(servers: &[About]) -> Vec<Address> {
    let address = |server: &About| {
        let port = server.get("port")?.parse().ok().filter(|port| *port > 0)?;
        Some(Address::new(server.get("ip").filter(|host| !host.is_empty())?.clone(), port))
    };
    servers.iter().filter_map(address).collect()
}

/// What our Sentinels say, and what others say, and where: an address that was one of ours may lead to somebody else's, whose
/// primary has the same name and a higher epoch. Ours name one of the servers that are known; where nobody does, as at start or
/// where all addresses have changed, the seeds are ours, and who names one of the same servers.
fn of_ours(said: Vec<(Address, View)>, known: &BTreeSet<Address>, way: &Way) -> (Vec<View>, Vec<(Address, View)>) {
    let named = |view: &View| -> Vec<_> {
        [&view.primary].into_iter().chain(&view.replicas).map(|server| way.reached_at(server)).collect()
    };
    let names = |view: &View, servers: &BTreeSet<Address>| named(view).iter().any(|server| servers.contains(server));
    let of_seeds =
        || said.iter().filter(|(who, _)| way.seeds.contains(who)).flat_map(|(_, view)| named(view)).collect();
    let servers = match said.iter().any(|(_, view)| names(view, known)) {
        true => known.clone(),
        false => of_seeds(),
    };
    let (ours, strange): (Vec<_>, Vec<_>) = said.into_iter().partition(|(_, view)| names(view, &servers));
    (ours.into_iter().map(|(_, view)| view).collect(), strange)
}

/// A primary that Sentinels name.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    epoch: u64,
    primary: Address,
    /// How many of them say so; one that several addresses lead to counts once.
    votes: usize,
}

impl Candidate {
    /// Whether most of the Sentinels that are known name it. A few may have been cut off from the others, with an old primary.
    fn is_of_most(&self, known: usize) -> bool {
        self.votes * 2 > known
    }
}

/// What the Sentinels name, the newest word first, and of the same age that of most.
fn candidates(views: &[View]) -> Vec<Candidate> {
    let mut votes = BTreeMap::<_, BTreeSet<_>>::new();
    for view in views {
        votes.entry((view.epoch, &view.primary)).or_default().insert(&view.others);
    }
    let mut candidates: Vec<_> = votes
        .into_iter()
        .map(|((epoch, primary), votes)| Candidate { epoch, primary: primary.clone(), votes: votes.len() })
        .collect();
    candidates.sort_by_key(|candidate| std::cmp::Reverse((candidate.epoch, candidate.votes)));
    candidates
}

/// Whether a message is about the primary of this name: `<name> …`, or `master <name> …`, or `… @ <name> …`.
fn names(text: &str, name: &str) -> bool {
    text.split(' ').any(|word| word == name)
}

#[derive(PartialEq, Eq)]
enum Role {
    Primary,
    Replica,
}

/// What a server calls itself. `None`: it does not say.
async fn role(node: &Node) -> Option<Role> {
    let Ok(Reply::List(parts)) = node.tell("ROLE", Vec::new(), Instant::now() + ANSWER).await else { return None };
    match parts.first() {
        Some(Reply::Text(role)) if role == "master" => Some(Role::Primary),
        Some(Reply::Text(role)) if role == "slave" => Some(Role::Replica),
        _ => None,
    }
}

async fn is_primary(node: &Node) -> bool {
    role(node).await == Some(Role::Primary)
}

/// Compares all that may be replicas with the primary for ever.
async fn compare_replicas(shared: Arc<Shared>) {
    loop {
        if let Some(primary) = shared.primary.load_full() {
            let servers: Vec<_> = shared.state().servers.values().cloned().collect();
            let others = servers.iter().filter(|server| !Arc::ptr_eq(server, &primary));
            primary.readers.compare(&primary.node, others.map(|server| server.reader.clone()).collect()).await;
        }
        tokio::time::sleep(replicas::EVERY).await;
    }
}

/// Looks after the way for ever.
async fn look_after(shared: Arc<Shared>) {
    loop {
        let looked = Instant::now();
        let well = shared.refresh().await;
        // A promotion that a Sentinel tells of counts as well, so nobody hunts for long without asking; but once at least,
        // however long the Sentinels' answers take.
        while shared.hunt().await && looked.elapsed() < SOON {
            tokio::time::sleep(HUNT_EVERY).await;
        }
        if shared.state().hunt.is_some() {
            continue;
        }
        let every = if well { EVERY } else { SOON };
        let _ = tokio::time::timeout(every, shared.look.notified()).await;
        // Not more often, whatever is asked for: what comes in between is looked at together.
        tokio::time::sleep(SOON.saturating_sub(looked.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Url;

    const SENTINELS: [&str; 4] = ["a", "b", "c", "d"];

    /// What this one of four Sentinels says.
    fn view(sentinel: &str, port: u16, epoch: u64) -> View {
        let (replicas, sentinels) = (Vec::new(), Vec::new());
        let others = SENTINELS.into_iter().filter(|other| *other != sentinel).map(str::to_owned).collect();
        View { primary: Address::new("h", port), epoch, fails_over: false, replicas, sentinels, others }
    }

    fn text(text: &str) -> Reply {
        Reply::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn list(words: &[&str]) -> Reply {
        Reply::List(words.iter().map(|word| text(word)).collect())
    }

    #[test]
    fn the_newest_word_counts_and_of_the_same_age_that_of_most() {
        let found = |views: &[View]| -> Vec<_> {
            let found = |candidate: Candidate| (candidate.epoch, candidate.primary.port, candidate.votes);
            candidates(views).into_iter().map(found).collect()
        };
        let views = [view("a", 1, 7), view("b", 2, 8), view("c", 3, 7), view("d", 3, 7)];
        assert_eq!(found(&views), [(8, 2, 1), (7, 3, 2), (7, 1, 1)]);
        // A host and an address that lead to the same one.
        let views = [view("a", 1, 7), view("a", 1, 7), view("b", 2, 7), view("c", 2, 7)];
        assert_eq!(found(&views), [(7, 2, 2), (7, 1, 1)]);
        assert_eq!(found(&[]), []);
    }

    #[test]
    fn ours_name_a_server_that_is_known_or_where_nobody_does_one_that_a_seed_names() {
        // The Sentinels at 1 and 2 are seeds. Who says what: where he is, the primary, a replica; and whether he is ours.
        type Said = (u16, u16, u16, bool);
        let table: [(&[u16], &[Said]); 6] = [
            (&[], &[(1, 11, 12, true), (2, 11, 12, true)]),
            (&[11, 12], &[(1, 11, 12, true), (3, 11, 13, true), (4, 14, 12, true), (5, 21, 22, false)]),
            (&[11, 12], &[(5, 21, 22, false)]),
            // All addresses have changed.
            (&[11, 12], &[(1, 31, 32, true), (3, 32, 31, true), (5, 21, 22, false)]),
            // A seed's address is somebody else's.
            (&[11, 12], &[(1, 21, 22, false), (3, 11, 12, true)]),
            (&[11, 12], &[(1, 21, 22, false), (2, 11, 12, true), (5, 21, 22, false)]),
        ];
        let way = Way::of_url(Url::parse("redis-sentinel://h:1,h:2/my").unwrap());
        let at = |port| Address::new("h", port);
        for (known, said) in table {
            let views = said.iter().map(|(who, primary, replica, _)| {
                (at(*who), View { replicas: vec![at(*replica)], ..view("a", *primary, 7) })
            });
            let (ours, strange) = of_ours(views.collect(), &known.iter().map(|port| at(*port)).collect(), &way);
            let wanted = said.iter().filter(|(.., is_ours)| !is_ours).map(|(who, ..)| at(*who));
            let found: Vec<_> = strange.into_iter().map(|(who, _)| who).collect();
            assert_eq!((ours.len() + found.len(), found), (said.len(), wanted.collect()), "{known:?} {said:?}");
        }
    }

    #[test]
    fn an_older_word_is_that_of_a_memory_that_was_made_anew_if_most_of_those_that_are_known_say_so() {
        let table = [(1, 1, true), (1, 2, false), (2, 3, true), (1, 3, false), (2, 4, false), (3, 5, true)];
        for (votes, known, wanted) in table {
            let candidate = Candidate { epoch: 0, primary: Address::new("h", 1), votes };
            assert_eq!(candidate.is_of_most(known), wanted, "{votes} of {known}");
        }
    }

    #[test]
    fn a_view_is_read_from_four_replies() {
        let read = |flags, replicas| {
            View::read(
                list(&["10.0.0.1", "6379"]),
                list(&["ip", "10.0.0.1", "port", "6379", "flags", flags, "config-epoch", "7"]),
                replicas,
                Reply::List(vec![list(&["ip", "10.0.0.9", "port", "26379", "runid", "f00"])]),
            )
        };
        let replicas = || Reply::List(vec![list(&["ip", "fd00::1", "port", "7"]), list(&["ip", "", "port", "0"])]);
        let view = read("master,failover_in_progress", replicas()).unwrap();
        assert_eq!((view.primary, view.epoch, view.fails_over), (Address::new("10.0.0.1", 6379), 7, true));
        assert_eq!(view.replicas, [Address::new("fd00::1", 7)]);
        assert_eq!(view.sentinels, [Address::new("10.0.0.9", 26_379)]);
        assert_eq!(view.others, Others::from(["f00".to_owned()]));
        assert!(!read("master", replicas()).unwrap().fails_over);
        let promoted = list(&["ip", "10.0.0.2", "port", "6379", "flags", "failover_in_progress", "config-epoch", "7"]);
        let view = View::read(list(&["10.0.0.1", "6379"]), promoted, replicas(), replicas()).unwrap();
        assert!(!view.fails_over, "the old primary would still call itself one");
        for odd in [Reply::Nothing, list(&["ip"]), Reply::List(vec![Reply::Number(1)])] {
            assert!(read("master", odd).is_none());
        }
        assert!(View::read(Reply::Nothing, list(&[]), list(&[]), list(&[])).is_none());
    }

    #[test]
    fn a_message_of_another_primary_is_none_of_ours() {
        assert!(names("my 10.0.0.1 1 10.0.0.2 2", "my"));
        assert!(names("master my 10.0.0.1 1", "my"));
        assert!(names("slave 10.0.0.2:2 10.0.0.2 2 @ my 10.0.0.1 1", "my"));
        assert!(!names("master other 10.0.0.1 1", "my"));
    }
}
