//! A proxy before Redis that sees single commands: counts them, and loses, delays, refuses, mixes up or answers the ones that
//! a test names.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::resp::{self, Malformed};

/// How long a test waits for a command to be held before it ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// A TCP proxy before Redis with faults for single commands; dropping it cuts all connections.
///
/// It runs on a thread of its own, so a test that blocks or pauses its clock does not hold it up. Pipelines and RESP3
/// are understood. Each command is expected to have one reply, so faults do not suit connections that subscribe,
/// monitor, or switch replies off; such connections pass.
///
/// ```
/// use redis_session_testkit::{Action, Proxy, RedisServer};
/// use std::{io::{Read, Write}, net::TcpStream};
///
/// let redis = RedisServer::start();
/// let proxy = Proxy::start(redis.address());
/// proxy.fault(|command| match command.name() {
///     "INCR" => Action::DropReply,
///     _ => Action::Pass,
/// });
///
/// let mut client = TcpStream::connect(proxy.address()).unwrap();
/// client.write_all(b"PING\r\nINCR hits\r\n").unwrap();
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).unwrap();
/// assert_eq!(answer, "+PONG\r\n"); // then the connection was cut …
/// assert_eq!(redis.run(&["GET", "hits"]).int(), 1); // … but INCR ran
/// assert_eq!(proxy.count("INCR"), 1);
/// ```
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The thread that does the work, and what tells it to end; `None` only while being dropped.
    running: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

/// What becomes of a command. Replies of commands before it on its connection are delivered first, whatever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is sent on, and its reply comes back.
    Pass,
    /// Redis runs it; its reply is lost, and the connection is cut in its place. What came behind it is not sent.
    DropReply,
    /// It is kept from Redis for a time (or until [`Proxy::release`]; [`Duration::MAX`] means until then), and then
    /// sent on, also when the client has gone.
    HoldThenSend {
        /// How long it is kept.
        after: Duration,
        /// Whether the client's connection is cut at once (what came behind the command is not sent) or left open
        /// (what comes behind it waits, as TCP has it).
        cut: bool,
    },
    /// The connection is cut, and Redis never sees the command.
    Cut,
    /// Redis never sees it, and this comes back instead: `-LOADING Redis is loading\r\n`, or anything else.
    Answer(Vec<u8>),
    /// Redis runs it, and this comes back as its reply; its own comes for the next command, and so on: from here on,
    /// each command on this connection gets the reply of the one before.
    AnswerAndShift(Vec<u8>),
    /// It is sent on, and its reply comes back no sooner than after so long. Others are not held up by it, but for the order
    /// of replies: give it to all commands of a slow line.
    Delay(Duration),
    /// Redis runs it, and its reply is lost, but the connection stays: from here on, each command on this connection
    /// gets the reply of the next one.
    LoseReply,
    /// Redis runs it, and its reply is exchanged for that of the next such command on another connection, for which it
    /// waits.
    Swap,
}

/// A command on its way to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    name: String,
    args: Vec<Vec<u8>>,
    connection: u64,
}

impl Command {
    /// The name, in capitals.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What comes after the name.
    #[must_use]
    pub fn args(&self) -> &[Vec<u8>] {
        &self.args
    }

    /// One of the arguments as text, with what is not UTF-8 replaced; empty if there is none.
    #[must_use]
    pub fn arg(&self, index: usize) -> String {
        self.args.get(index).map(|arg| String::from_utf8_lossy(arg).into_owned()).unwrap_or_default()
    }

    /// Whether one of the arguments is this.
    #[must_use]
    pub fn has(&self, arg: impl AsRef<[u8]>) -> bool {
        self.args.iter().any(|one| one == arg.as_ref())
    }

    /// Which connection it came on: they are numbered from 1 as they are opened.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.connection
    }
}

impl Proxy {
    /// Starts a proxy on a free loopback port before the server at `target`, passing everything.
    #[must_use]
    pub fn start(target: impl Into<SocketAddr>) -> Self {
        let cannot = |error: std::io::Error| panic!("the proxy cannot start: {error}");
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap_or_else(cannot);
        listener.set_nonblocking(true).unwrap_or_else(|error| panic!("the proxy cannot start: {error}"));
        let address =
            listener.local_addr().unwrap_or_else(|error| panic!("the proxy has no address of its own: {error}"));
        let shared = Arc::new(Shared {
            target: watch::Sender::new(Target { address: target.into(), moves: 0 }),
            decide: Mutex::new(Box::new(|_| Action::Pass)),
            counts: Mutex::default(),
            connections: AtomicU64::new(0),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            held: watch::Sender::new(0),
            release: watch::Sender::new(()),
            swap: Mutex::default(),
        });
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || run(listener, shared, ended)
        });
        Self { address, shared, running: Some((end, thread)) }
    }

    /// The proxy's own address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The proxy's own port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address as an application is told it: `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Leads to another server from now on, as after a failover. Connections to the one before are cut, and what they
    /// held is lost.
    pub fn lead_to(&self, target: impl Into<SocketAddr>) {
        let address = target.into();
        self.shared.target.send_modify(|target| *target = Target { address, moves: target.moves + 1 });
    }

    /// The same for new connections only, as where a name or an address moves and the server that had it lives on: those that
    /// are there stay where they are.
    pub fn lead_new_to(&self, target: impl Into<SocketAddr>) {
        let address = target.into();
        self.shared.target.send_modify(|target| target.address = address);
    }

    /// Asks `decide` about every command from now on, in the order of their arrival.
    pub fn fault(&self, decide: impl FnMut(&Command) -> Action + Send + 'static) {
        *self.shared.decide() = Box::new(decide);
    }

    /// Does this to the next command of that name, and passes everything else.
    pub fn fault_next(&self, name: &str, action: Action) {
        let name = name.to_uppercase();
        let mut action = Some(action);
        self.fault(move |command| match command.name() {
            this if this == name => action.take().unwrap_or(Action::Pass),
            _ => Action::Pass,
        });
    }

    /// Passes everything from now on; what is held stays held.
    pub fn clear_faults(&self) {
        self.fault(|_| Action::Pass);
    }

    /// Sends on all commands that are held now.
    pub fn release(&self) {
        self.shared.release.send_replace(());
    }

    /// How many commands are held, or sent on late and not answered yet.
    #[must_use]
    pub fn held(&self) -> usize {
        *self.shared.held.borrow()
    }

    /// Waits until at least so many commands are held.
    pub async fn until_held(&self, count: usize) {
        let mut held = self.shared.held.subscribe();
        let enough = timeout(PATIENCE, held.wait_for(|held| *held >= count)).await.is_ok();
        assert!(enough, "{} commands are held after {PATIENCE:?}, not {count}", self.held());
    }

    /// Waits until no command is held any more and Redis has answered those that were.
    pub async fn until_settled(&self) {
        let mut held = self.shared.held.subscribe();
        let settled = timeout(PATIENCE, held.wait_for(|held| *held == 0)).await.is_ok();
        assert!(settled, "{} commands are still held after {PATIENCE:?}", self.held());
    }

    /// How often each command arrived, whatever became of it. Names are in capitals; scripts' own calls are not seen.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.shared.counts().clone()
    }

    /// How often one command arrived, whatever the case of its name.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.shared.counts().get(&name.to_uppercase()).copied().unwrap_or(0)
    }

    /// How many bytes were sent on to Redis.
    #[must_use]
    pub fn bytes_to_server(&self) -> u64 {
        self.shared.to_server.load(Ordering::Relaxed)
    }

    /// How many bytes were sent back to clients.
    #[must_use]
    pub fn bytes_to_client(&self) -> u64 {
        self.shared.to_client.load(Ordering::Relaxed)
    }

    /// How many connections were opened since the start.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Sets the counts of commands and bytes to zero.
    pub fn reset_counts(&self) {
        self.shared.counts().clear();
        self.shared.to_server.store(0, Ordering::Relaxed);
        self.shared.to_client.store(0, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            drop(end);
            // Its panic, if it had one, was printed.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("target", &self.shared.target.borrow().address)
            .finish_non_exhaustive()
    }
}

type Decide = Box<dyn FnMut(&Command) -> Action + Send>;

/// Where new connections lead to.
#[derive(Clone, Copy)]
struct Target {
    address: SocketAddr,
    /// How often all connections were cut so that they lead elsewhere.
    moves: u64,
}

struct Shared {
    target: watch::Sender<Target>,
    decide: Mutex<Decide>,
    counts: Mutex<BTreeMap<String, u64>>,
    connections: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    held: watch::Sender<usize>,
    release: watch::Sender<()>,
    /// A reply that waits for another one to be exchanged for. `None`: none does.
    swap: Mutex<Option<(Bytes, oneshot::Sender<Bytes>)>>,
}

impl Shared {
    // A panic in a test's closure is printed, and must not turn into one about locks elsewhere.
    fn decide(&self) -> MutexGuard<'_, Decide> {
        self.decide.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act_on(&self, command: &Command) -> Action {
        *self.counts().entry(command.name.clone()).or_default() += 1;
        (self.decide())(command)
    }

    /// Waits for another reply, and takes it for this one. Keeps it if the other one's connection goes first.
    async fn swap(&self, reply: Bytes) -> Bytes {
        let waiting = {
            let mut place = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
            match place.take().filter(|(_, other)| !other.is_closed()) {
                Some((theirs, other)) => return other.send(reply).map_or_else(|ours| ours, |()| theirs),
                None => {
                    let (give, get) = oneshot::channel();
                    *place = Some((reply.clone(), give));
                    get
                }
            }
        };
        waiting.await.unwrap_or(reply)
    }

    fn hold(self: &Arc<Self>) -> Held {
        let released = self.release.subscribe();
        self.held.send_modify(|held| *held += 1);
        Held { shared: Arc::clone(self), released }
    }
}

/// A held command, counted as such until this is dropped.
struct Held {
    shared: Arc<Shared>,
    released: watch::Receiver<()>,
}

impl Held {
    async fn until_due(&mut self, after: Duration) {
        tokio::select! {
            () = sleep(after) => {}
            _ = self.released.changed() => {}
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.held.send_modify(|held| *held -= 1);
    }
}

fn run(listener: std::net::TcpListener, shared: Arc<Shared>, ended: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("the proxy cannot start: {error}"));
    runtime.block_on(async {
        tokio::select! {
            _ = ended => {}
            () = accept(listener, shared) => {}
        }
    });
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap_or_else(|error| panic!("the proxy cannot listen: {error}"));
    loop {
        // An error here is about one connection that has gone again.
        let Ok((client, _)) = listener.accept().await else { continue };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut target = shared.target.subscribe();
            let Target { address, moves } = *target.borrow_and_update();
            tokio::select! {
                () = connect(&shared, client, address, number) => {}
                _ = target.wait_for(|target| target.moves != moves) => {}
            }
        });
    }
}

/// What the client is owed, in the order of its commands.
enum Owed {
    /// The next reply of Redis; it is for a held command if there is one.
    Reply(Option<Held>),
    /// The next reply of Redis is lost, and the connection is cut.
    Loss,
    /// These bytes.
    Answer(Vec<u8>),
    /// The next reply of Redis, not before this moment.
    Delayed(Instant),
    /// The next reply of Redis, in the place of that to the next command.
    Later,
    /// Nothing, whatever the next reply of Redis is.
    Nothing,
    /// The reply that another connection is owed, which gets this one's.
    Swapped,
    /// The connection is cut.
    Cut,
}

async fn connect(shared: &Arc<Shared>, client: TcpStream, target: SocketAddr, number: u64) {
    // No server: the client sees its connection end at once, which says the same.
    let Ok(server) = TcpStream::connect(target).await else { return };
    for stream in [&client, &server] {
        // It only costs time if this fails.
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (owe, owed) = mpsc::unbounded_channel();
    let client = Client { shared, stream: Some(to_client) };
    let mut replies = std::pin::pin!(carry_replies(from_server, client, owed));
    // Kept until the last reply is here: Redis need not answer a connection that says goodbye.
    let _to_server = tokio::select! {
        () = &mut replies => return,
        to_server = carry_requests(shared, from_client, to_server, owe, number) => to_server,
    };
    replies.await;
}

/// Reads commands and acts on them until the client has gone or is to be cut.
async fn carry_requests(
    shared: &Arc<Shared>,
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    owe: mpsc::UnboundedSender<Owed>,
    connection: u64,
) -> OwnedWriteHalf {
    // What is owed is said before the command is sent, so that no reply can be there first.
    // Nobody to owe it to, and no server to send it to: both show in the replies' half, which ends this one.
    let owe = |owed| drop(owe.send(owed));
    let mut received = BytesMut::new();
    loop {
        while let Ok(Some(request)) = resp::request(&received) {
            let bytes = received.split_to(request.length);
            let Some(command) = Command::from_words(request.words, connection) else { continue };
            match shared.act_on(&command) {
                Action::Pass => {
                    owe(Owed::Reply(None));
                    shared.send(&mut server, &bytes).await;
                }
                Action::Answer(answer) => owe(Owed::Answer(answer)),
                Action::AnswerAndShift(answer) => {
                    owe(Owed::Answer(answer));
                    owe(Owed::Later);
                    shared.send(&mut server, &bytes).await;
                }
                Action::Delay(time) => {
                    owe(Owed::Delayed(Instant::now() + time));
                    shared.send(&mut server, &bytes).await;
                }
                Action::LoseReply => {
                    owe(Owed::Nothing);
                    shared.send(&mut server, &bytes).await;
                }
                Action::Swap => {
                    owe(Owed::Swapped);
                    shared.send(&mut server, &bytes).await;
                }
                Action::DropReply => {
                    owe(Owed::Loss);
                    shared.send(&mut server, &bytes).await;
                    return server;
                }
                Action::Cut => {
                    owe(Owed::Cut);
                    return server;
                }
                Action::HoldThenSend { after, cut } => {
                    let mut held = shared.hold();
                    if cut {
                        owe(Owed::Cut);
                        drop(client);
                        held.until_due(after).await;
                        owe(Owed::Reply(Some(held)));
                        shared.send(&mut server, &bytes).await;
                        return server;
                    }
                    held.until_due(after).await;
                    owe(Owed::Reply(Some(held)));
                    shared.send(&mut server, &bytes).await;
                }
            }
        }
        let malformed = resp::request(&received).is_err();
        if malformed || !matches!(client.read_buf(&mut received).await, Ok(1..)) {
            return server;
        }
    }
}

/// Pays what is owed, until nothing more can come or Redis has gone.
async fn carry_replies(server: OwnedReadHalf, mut client: Client<'_>, mut owed: mpsc::UnboundedReceiver<Owed>) {
    let mut replies = Replies { stream: server, received: BytesMut::new(), kept: None };
    loop {
        let next = tokio::select! {
            biased;
            next = owed.recv() => next,
            // A reply that nobody asked for: a message of a subscription.
            reply = replies.next() => match reply {
                Ok(message) => { client.send(&message).await; continue }
                Err(Gone) => return,
            },
        };
        match next {
            None => return,
            Some(Owed::Cut) => client.stream = None,
            Some(Owed::Answer(answer)) => client.send(&answer).await,
            Some(Owed::Delayed(due)) => match replies.answer(&mut client).await {
                Ok(answer) => {
                    sleep_until(due).await;
                    client.send(&answer).await;
                }
                Err(Gone) => return,
            },
            Some(Owed::Later) => match replies.answer(&mut client).await {
                Ok(answer) => replies.kept = Some(answer),
                Err(Gone) => return,
            },
            Some(Owed::Nothing) => match replies.answer(&mut client).await {
                Ok(_) => {}
                Err(Gone) => return,
            },
            Some(Owed::Swapped) => match replies.answer(&mut client).await {
                Ok(answer) => {
                    let other = client.shared.swap(answer).await;
                    client.send(&other).await;
                }
                Err(Gone) => return,
            },
            Some(Owed::Loss) => match replies.answer(&mut client).await {
                Ok(_) => client.stream = None,
                Err(Gone) => return,
            },
            Some(Owed::Reply(_held)) => match replies.answer(&mut client).await {
                Ok(answer) => client.send(&answer).await,
                Err(Gone) => return,
            },
        }
    }
}

impl Command {
    fn from_words(words: Vec<Vec<u8>>, connection: u64) -> Option<Self> {
        let mut words = words.into_iter();
        let name = String::from_utf8_lossy(&words.next()?).to_uppercase();
        Some(Self { name, args: words.collect(), connection })
    }
}

impl Shared {
    async fn send(&self, server: &mut OwnedWriteHalf, bytes: &[u8]) {
        // Counted first: whoever has read the reply must find it counted.
        self.to_server.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // A server that has gone shows in the replies' half, which ends this one.
        let _ = server.write_all(bytes).await;
    }
}

/// The way back to the client.
struct Client<'a> {
    shared: &'a Shared,
    /// `None` once the client has gone or was cut: replies are still read then, and thrown away.
    stream: Option<OwnedWriteHalf>,
}

impl Client<'_> {
    async fn send(&mut self, bytes: &[u8]) {
        let Some(stream) = &mut self.stream else { return };
        self.shared.to_client.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if stream.write_all(bytes).await.is_err() {
            self.stream = None;
        }
    }
}

/// Redis has closed the connection, or what it says is no reply.
struct Gone;

impl From<Malformed> for Gone {
    fn from(_: Malformed) -> Self {
        Self
    }
}

struct Replies {
    stream: OwnedReadHalf,
    received: BytesMut,
    /// A reply that comes in the place of the next one, which comes in the place of the one after it. `None`: each comes
    /// in its own.
    kept: Option<Bytes>,
}

impl Replies {
    /// The next reply or push message. May be dropped half-way: what has arrived is kept.
    async fn next(&mut self) -> Result<Bytes, Gone> {
        loop {
            if let Some(length) = resp::reply_length(&self.received)? {
                return Ok(self.received.split_to(length).freeze());
            }
            if !matches!(self.stream.read_buf(&mut self.received).await, Ok(1..)) {
                return Err(Gone);
            }
        }
    }

    /// The next reply; push messages before it are sent on.
    async fn answer(&mut self, client: &mut Client<'_>) -> Result<Bytes, Gone> {
        loop {
            let reply = self.next().await?;
            if !resp::is_push(&reply) {
                return Ok(match &mut self.kept {
                    Some(kept) => std::mem::replace(kept, reply),
                    None => reply,
                });
            }
            client.send(&reply).await;
        }
    }
}
