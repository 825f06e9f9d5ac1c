//! A cluster of real processes, whose slots can be moved while a test looks on.

use std::{
    iter,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use crate::{
    lines::{Lines, Party, Ports, address_of},
    redis::{Kind, RedisOptions, RedisServer, start_all, until, until_found},
    replicas::{Role, RoleKind, replicating},
    resp::Reply,
    sentinel::hosts,
};

/// How many slots a cluster has.
const SLOTS: usize = 16_384;
/// How many keys are moved at once.
const A_FEW: usize = 100;

/// Primaries that share the slots evenly, and their replicas. Dropping it ends them.
///
/// Each node is a [`RedisServer`], to be killed, paused, resumed, and started again as itself. Methods block (briefly)
/// and panic when something does not come about.
///
/// ```
/// use redis_session_testkit::Cluster;
///
/// let cluster = Cluster::options().replicas(0).start();
/// assert!(cluster.url().starts_with("redis-cluster://127.0.0.1:"));
/// cluster.run_at("greeting", &["SET", "greeting", "hello"]);
///
/// let old = cluster.primary_of("greeting");
/// let new = cluster.nodes().iter().find(|node| node.port() != old.port()).unwrap();
/// assert!(new.command(&["GET", "greeting"]).error().unwrap().starts_with("MOVED"));
/// cluster.move_slot(cluster.slot_of("greeting"), new);
/// assert_eq!(new.run(&["GET", "greeting"]).text(), "hello");
/// ```
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<RedisServer>,
    /// What the cluster calls the nodes.
    ids: Vec<String>,
    /// `None`: they reach each other as they are.
    lines: Option<Lines>,
}

/// A [`Cluster`] that is still to be started, from [`Cluster::options`].
///
/// ```
/// use redis_session_testkit::Cluster;
///
/// let options = Cluster::options().primaries(1).replicas(1).without_full_coverage();
/// let cluster = options.start_with(|options| options.password("secret"));
/// assert_eq!(cluster.nodes().len(), 2);
/// assert!(cluster.url().starts_with("redis-cluster://:secret@127.0.0.1:"));
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is started before `start`"]
pub struct ClusterOptions {
    primaries: usize,
    replicas: usize,
    node_timeout: Duration,
    full_coverage: bool,
    lines: bool,
}

impl ClusterOptions {
    /// How many primaries. Default: 3, which is the least that can replace one that failed.
    pub fn primaries(self, primaries: usize) -> Self {
        Self { primaries, ..self }
    }

    /// How many replicas each primary has. Default: 1.
    pub fn replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    /// After how long without an answer a node is taken to have failed. Default: two seconds.
    pub fn node_timeout(self, node_timeout: Duration) -> Self {
        Self { node_timeout, ..self }
    }

    /// Lets the others serve their slots while some slots have no node (`cluster-require-full-coverage no`). Default:
    /// Redis's, which is that nobody serves any.
    pub fn without_full_coverage(self) -> Self {
        Self { full_coverage: false, ..self }
    }

    /// Lays lines to each node, for the other nodes and for clients, so that a test can [`cut`](Cluster::cut) them: the nodes
    /// announce the lines' ports, and [`url`](Cluster::url) names those. Needs an address for each node in 127.0.1.0/24,
    /// as Linux has them.
    pub fn lines(self) -> Self {
        Self { lines: true, ..self }
    }

    /// Starts the nodes, and waits until the cluster is well. That takes more than two seconds, since a new primary of a
    /// cluster refuses commands for as long.
    #[must_use]
    pub fn start(self) -> Cluster {
        self.start_with(|options| options)
    }

    /// The same with settings for each node: a [password](RedisOptions::password), users, TLS.
    #[must_use]
    pub fn start_with(self, configure: impl Fn(RedisOptions) -> RedisOptions) -> Cluster {
        assert!(self.primaries > 0, "a cluster has a primary");
        let count = self.primaries * (1 + self.replicas);
        let lines = self.lines.then(|| Lines::start(count));
        let nodes = start_all((0..count).map(|number| configure(self.node(number, lines.as_ref()))));
        if let Some(lines) = &lines {
            lines.lead_to(nodes.iter().map(|node| Ports { data: node.port(), bus: node.bus_port() }).collect());
        }
        let ids = nodes.iter().map(|node| node.run(&["CLUSTER", "MYID"]).text()).collect();
        let this = Cluster { nodes, ids, lines };
        this.share_slots(self.primaries);
        this.meet();
        for (number, replica) in this.nodes.iter().enumerate().skip(self.primaries) {
            replica.run(&["CLUSTER", "REPLICATE", &this.ids[number % self.primaries]]);
        }
        this.wait_until_well();
        this
    }

    fn node(&self, number: usize, lines: Option<&Lines>) -> RedisOptions {
        let mut options = replicating(RedisServer::options().kind(Kind::ClusterNode));
        if let Some(lines) = lines {
            let Ports { data, bus } = lines.ports(number);
            options = options
                .setting("cluster-announce-ip", "127.0.0.1")
                .setting("cluster-announce-port", &data.to_string())
                .setting("cluster-announce-bus-port", &bus.to_string())
                .setting("bind-source-addr", &address_of(number).to_string());
        }
        options
            .setting("cluster-enabled", "yes")
            .setting("cluster-node-timeout", &self.node_timeout.as_millis().to_string())
            .setting("cluster-require-full-coverage", if self.full_coverage { "yes" } else { "no" })
            // A replica stays with its primary, where the test looks for it.
            .setting("cluster-allow-replica-migration", "no")
    }
}

impl Cluster {
    /// Starts three primaries, each with a replica.
    #[must_use]
    pub fn start() -> Self {
        Self::options().start()
    }

    /// How many nodes, settings, and then [`start`](ClusterOptions::start).
    pub fn options() -> ClusterOptions {
        let node_timeout = Duration::from_secs(2);
        ClusterOptions { primaries: 3, replicas: 1, node_timeout, full_coverage: true, lines: false }
    }

    fn share_slots(&self, primaries: usize) {
        for (number, node) in self.nodes.iter().enumerate() {
            // One each, or they would have to find out that they are not all the first.
            node.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            if number < primaries {
                let (first, end) = (number * SLOTS / primaries, (number + 1) * SLOTS / primaries);
                node.run(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
            }
        }
    }

    fn meet(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for other in number + 1..self.nodes.len() {
                let Ports { data, bus } = self.announced(other);
                node.run(&["CLUSTER", "MEET", "127.0.0.1", &data.to_string(), &bus.to_string()]);
            }
        }
        until("the nodes of the cluster do not meet", || self.nodes.iter().all(|node| self.knows_all(node)));
    }

    fn knows_all(&self, node: &RedisServer) -> bool {
        let table = table(node);
        table.len() == self.nodes.len() && self.ids.iter().all(|id| table.iter().any(|line| line.id == *id))
    }

    /// Waits until all nodes that run say that the cluster is well, know each other, and agree on who serves which slots,
    /// and their replicas are in sync: after a failover, or when a node was started again.
    pub fn wait_until_well(&self) {
        until("the cluster does not get well", || {
            let up: Vec<_> = self.nodes.iter().filter(|node| node.is_up()).collect();
            let tables: Vec<_> = up.iter().map(|node| slots(table(node))).collect();
            up.iter().all(|node| self.knows_all(node) && is_well(node)) && tables.windows(2).all(|two| two[0] == two[1])
        });
    }

    /// The address as an application is told it: `redis-cluster://[:PASSWORD@]HOST:PORT,HOST:PORT,…`, with all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let credentials = self.nodes[0].password().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis-cluster://{credentials}{}", self.hosts())
    }

    /// The address by TLS: `rediss-cluster://HOST:PORT,HOST:PORT,…`; panics if the nodes were not started with it.
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("rediss-cluster://{}", hosts(&self.nodes, RedisServer::tls_port))
    }

    /// The same for a user.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("redis-cluster://{user}:{password}@{}", self.hosts())
    }

    fn hosts(&self) -> String {
        let hosts: Vec<_> =
            (0..self.nodes.len()).map(|number| format!("127.0.0.1:{}", self.announced(number).data)).collect();
        hosts.join(",")
    }

    /// The nodes: those that were started as primaries first, in the order of their slots, then their replicas in the
    /// same order.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The slot of a key.
    #[must_use]
    pub fn slot_of(&self, key: &str) -> u16 {
        let slot = self.nodes.iter().find_map(|node| node.look(&["CLUSTER", "KEYSLOT", key]));
        slot.and_then(|slot| u16::try_from(slot.int()).ok()).unwrap_or_else(|| panic!("no node of the cluster answers"))
    }

    /// The primary that serves a key, by the newest word of the nodes that answer: one that died serves it until
    /// another has taken its place.
    #[must_use]
    pub fn primary_of(&self, key: &str) -> &RedisServer {
        self.primary_of_slot(self.slot_of(key))
    }

    /// The same for a slot.
    #[must_use]
    pub fn primary_of_slot(&self, slot: u16) -> &RedisServer {
        let lines = self.nodes.iter().flat_map(table).filter(|line| line.is_primary && line.serves(slot));
        match lines.max_by_key(|line| line.epoch) {
            Some(line) => self.node(&line.id),
            None => panic!("nobody serves slot {slot}"),
        }
    }

    /// The primaries, each with its slots, by the newest word of the nodes that answer.
    #[must_use]
    pub fn shards(&self) -> Vec<(&RedisServer, Vec<RangeInclusive<u16>>)> {
        let tables = self.nodes.iter().map(table);
        let newest = |table: &Vec<Line>| table.iter().map(|line| line.epoch).max();
        let table = tables.max_by_key(newest).unwrap_or_default();
        let primaries = table.into_iter().filter(|line| line.is_primary && !line.slots.is_empty());
        let slots = |line: &Line| line.slots.iter().map(|(first, last)| *first..=*last).collect();
        primaries.map(|line| (self.node(&line.id), slots(&line))).collect()
    }

    /// The nodes that replicate this primary, by its own word or, if it does not answer, that of the others.
    #[must_use]
    pub fn replicas_of(&self, primary: &RedisServer) -> Vec<&RedisServer> {
        let id = self.id(primary);
        let mut tables = iter::once(primary).chain(&self.nodes).map(table);
        let known = tables.find(|table| !table.is_empty()).unwrap_or_default();
        known.iter().filter(|line| line.primary.as_deref() == Some(id)).map(|line| self.node(&line.id)).collect()
    }

    /// Runs a command that must work where its key is, also while its slot moves.
    pub fn run_at<A: AsRef<[u8]>>(&self, key: &str, command: &[A]) -> Reply {
        let passes = |error: &str| ["MOVED", "TRYAGAIN", "CLUSTERDOWN"].iter().any(|word| error.starts_with(word));
        let reply = until_found(&format!("the cluster runs no command on the key {key:?}"), || {
            let reply = self.primary_of(key).command(command);
            let reply = match asked_for(&reply) {
                Some(port) => self.at(port).command_asking(command),
                None => reply,
            };
            Some(reply).filter(|reply| !reply.error().is_some_and(passes))
        });
        if let Some(error) = reply.error() {
            panic!("redis refused a command on the key {key:?}: {error}");
        }
        reply
    }

    /// Hands the slots of a key's primary to its first replica that runs (`CLUSTER FAILOVER`), and returns the new
    /// primary once the nodes agree on it.
    pub fn failover(&self, key: &str) -> &RedisServer {
        let slot = self.slot_of(key);
        let old = self.primary_of_slot(slot);
        let new = self.replicas_of(old).into_iter().find(|replica| replica.is_up());
        let new = new.unwrap_or_else(|| panic!("the primary of slot {slot} has no replica that runs"));
        let mut asked: Option<Instant> = None;
        until("the replica does not become the primary", || {
            // It gives up after five seconds: others may not vote twice for one in a short while.
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(6))
                && new.command(&["CLUSTER", "FAILOVER"]).error().is_none()
            {
                asked = Some(Instant::now());
            }
            self.primary_of_slot(slot).port() == new.port()
        });
        self.wait_until_well();
        new
    }

    /// Waits until another node serves a key in the place of this one, which was killed or paused, and the nodes that run
    /// agree on it.
    pub fn wait_for_new_primary(&self, key: &str, old: &RedisServer) -> &RedisServer {
        until("nobody takes the place of the primary", || self.primary_of(key).port() != old.port());
        self.wait_until_well();
        self.primary_of(key)
    }

    /// Moves a slot and its keys to another primary while the cluster works on.
    pub fn move_slot(&self, slot: u16, to: &RedisServer) {
        self.begin_move(slot, to).finish();
    }

    /// Begins to move a slot to another primary: from now on its keys are at either, and whom the old one asks for a key
    /// that it does not have is told to `ASK` the new one.
    ///
    /// ```
    /// # use redis_session_testkit::Cluster;
    /// # let cluster = Cluster::options().primaries(2).replicas(0).start();
    /// cluster.run_at("{cart}1", &["SET", "{cart}1", "apples"]);
    /// cluster.run_at("{cart}2", &["SET", "{cart}2", "pears"]);
    /// let old = cluster.primary_of("{cart}1");
    /// let new = cluster.nodes().iter().find(|node| node.port() != old.port()).unwrap();
    ///
    /// let moving = cluster.begin_move(cluster.slot_of("{cart}1"), new);
    /// moving.move_key("{cart}1");
    /// assert!(old.command(&["GET", "{cart}1"]).error().unwrap().starts_with("ASK "));
    /// assert_eq!(old.run(&["GET", "{cart}2"]).text(), "pears");
    /// moving.finish();
    /// assert_eq!(new.run(&["GET", "{cart}2"]).text(), "pears");
    /// ```
    pub fn begin_move<'a>(&'a self, slot: u16, to: &'a RedisServer) -> SlotMove<'a> {
        let from = self.primary_of_slot(slot);
        assert_ne!(from.port(), to.port(), "slot {slot} is where it is to be moved");
        to.run(&["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", self.id(from)]);
        from.run(&["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", self.id(to)]);
        SlotMove { cluster: self, slot, from, to }
    }

    /// Cuts the line between two nodes, as where a cable is pulled: nothing comes through any more, and connections stay open.
    /// Panics where none was [laid](ClusterOptions::lines).
    ///
    /// ```
    /// # use redis_session_testkit::Cluster;
    /// let cluster = Cluster::options().primaries(1).replicas(1).lines().start();
    /// let [primary, replica] = cluster.nodes() else { panic!("two nodes") };
    /// cluster.cut(primary, replica);
    /// primary.run(&["SET", "greeting", "hello"]);
    /// assert_eq!(primary.run(&["WAIT", "1", "50"]).int(), 0);
    /// cluster.mend();
    /// assert_eq!(primary.run(&["WAIT", "1", "5000"]).int(), 1);
    /// ```
    pub fn cut(&self, one: &RedisServer, other: &RedisServer) {
        self.laid().cut(Party::Node(self.number(one)), Party::Node(self.number(other)));
    }

    /// The same between a node and all clients but the test itself, whose [`run`](RedisServer::run) goes around the lines.
    pub fn cut_clients(&self, node: &RedisServer) {
        self.laid().cut(Party::Clients, Party::Node(self.number(node)));
    }

    /// Mends all lines: what was sent meanwhile comes through, as far as anybody still waits for it.
    pub fn mend(&self) {
        self.laid().mend();
    }

    fn laid(&self) -> &Lines {
        self.lines.as_ref().unwrap_or_else(|| panic!("no lines were laid: Cluster::options().lines()"))
    }

    /// Where others reach a node.
    fn announced(&self, number: usize) -> Ports {
        let node = &self.nodes[number];
        let as_it_is = || Ports { data: node.port(), bus: node.bus_port() };
        self.lines.as_ref().map_or_else(as_it_is, |lines| lines.ports(number))
    }

    /// What the cluster calls a node.
    fn id(&self, node: &RedisServer) -> &str {
        &self.ids[self.number(node)]
    }

    fn number(&self, node: &RedisServer) -> usize {
        let number = self.nodes.iter().position(|other| other.port() == node.port());
        number.unwrap_or_else(|| panic!("port {} is no node of this cluster", node.port()))
    }

    fn node(&self, id: &str) -> &RedisServer {
        let number = self.ids.iter().position(|known| known == id);
        number.map_or_else(|| panic!("{id} is no node of this cluster"), |number| &self.nodes[number])
    }

    /// The node that announces this port.
    fn at(&self, port: u16) -> &RedisServer {
        let number = (0..self.nodes.len()).find(|number| self.announced(*number).data == port);
        number.map_or_else(|| panic!("port {port} is no node of this cluster"), |number| &self.nodes[number])
    }
}

/// A slot that is on its way from one primary to another, from [`Cluster::begin_move`]. It stays so until
/// [`finish`](Self::finish).
#[derive(Debug)]
#[must_use = "the slot stays half-way without `finish`"]
pub struct SlotMove<'a> {
    cluster: &'a Cluster,
    slot: u16,
    from: &'a RedisServer,
    to: &'a RedisServer,
}

impl SlotMove<'_> {
    /// The primary that the slot comes from.
    #[must_use]
    pub fn from(&self) -> &RedisServer {
        self.from
    }

    /// The primary that the slot goes to.
    #[must_use]
    pub fn to(&self) -> &RedisServer {
        self.to
    }

    /// Moves one key; does nothing if it is not at the old primary.
    pub fn move_key(&self, key: &str) {
        self.migrate(&[key.as_bytes()]);
    }

    /// Moves all keys that are at the old primary now, and tells how many.
    pub fn move_keys(&self) -> usize {
        let mut moved = 0;
        loop {
            let command = ["CLUSTER", "GETKEYSINSLOT", &self.slot.to_string(), &A_FEW.to_string()];
            let found = self.from.run(&command);
            let keys: Vec<_> = found.list().iter().map(Reply::bytes).collect();
            if keys.is_empty() {
                return moved;
            }
            self.migrate(&keys);
            moved += keys.len();
        }
    }

    fn migrate(&self, keys: &[&[u8]]) {
        let port = self.to.announced_port().to_string();
        let mut command: Vec<&[u8]> = vec![b"MIGRATE", b"127.0.0.1", port.as_bytes(), b"", b"0", b"5000"];
        if let Some(password) = self.to.password() {
            command.extend([&b"AUTH"[..], password.as_bytes()]);
        }
        command.push(b"KEYS");
        command.extend(keys);
        self.from.run(&command);
    }

    /// Moves the keys that are left, and gives the slot to the new primary.
    pub fn finish(self) {
        self.move_keys();
        let others = self.cluster.nodes.iter().filter(|node| {
            let both = [self.from.port(), self.to.port()];
            let is_primary = || Role::of(node).is_some_and(|role| role.kind == RoleKind::Primary);
            !both.contains(&node.port()) && is_primary()
        });
        // The new one first: if it were the last, the old one would send callers to it who would be sent back.
        for node in [self.to, self.from].into_iter().chain(others) {
            node.run(&["CLUSTER", "SETSLOT", &self.slot.to_string(), "NODE", self.cluster.id(self.to)]);
        }
    }
}

/// A node as another one sees it: a line of `CLUSTER NODES`.
struct Line {
    id: String,
    is_primary: bool,
    /// The id of the node that it replicates. `None`: it is a primary.
    primary: Option<String>,
    epoch: u64,
    /// Ranges from first to last.
    slots: Vec<(u16, u16)>,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, _, flags, primary, _, _, epoch, _, slots @ ..] = &words[..] else { return None };
        let flags: Vec<_> = flags.split(',').collect();
        // Those that are moving stand in brackets, and belong to whom they did.
        let slots = slots.iter().filter(|slots| !slots.starts_with('['));
        let slots = slots.map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        Some(Self {
            id: (*id).to_owned(),
            // While they have not met, a node has no id yet.
            is_primary: flags.contains(&"master") && !flags.contains(&"handshake"),
            primary: Some((*primary).to_owned()).filter(|primary| primary != "-"),
            epoch: epoch.parse().ok()?,
            slots: slots.collect::<Option<_>>()?,
        })
    }

    fn serves(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

/// What a node knows of all. Empty if it is dead or frozen.
fn table(node: &RedisServer) -> Vec<Line> {
    let reply = node.look(&["CLUSTER", "NODES"]);
    let text = reply.filter(|reply| reply.error().is_none()).map(|reply| reply.text()).unwrap_or_default();
    text.lines().filter_map(Line::parse).collect()
}

/// Who serves which slots, in an order that is the same for all nodes.
fn slots(table: Vec<Line>) -> Vec<(String, Vec<(u16, u16)>)> {
    let mut slots: Vec<_> =
        table.into_iter().filter(|line| line.is_primary).map(|line| (line.id, line.slots)).collect();
    slots.sort_unstable();
    slots
}

fn is_well(node: &RedisServer) -> bool {
    let info = node.look(&["CLUSTER", "INFO"]);
    let ok = info.is_some_and(|info| info.text().lines().any(|line| line == "cluster_state:ok"));
    ok && Role::of(node).is_some_and(|role| role.kind != RoleKind::Cut)
}

/// The port that an error `ASK 1234 127.0.0.1:7001` leads to, if this is one.
fn asked_for(reply: &Reply) -> Option<u16> {
    reply.error()?.strip_prefix("ASK ")?.rsplit_once(':')?.1.parse().ok()
}
