//! The lines between the nodes of a cluster, which a test can cut: a proxy before each port of each node, which tells by the
//! address that a connection comes from whose it is.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    thread,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{oneshot, watch},
};

/// Who speaks over a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    Clients,
    Node(usize),
}

/// The lines that are cut, each from the lesser party to the greater one.
type Cuts = BTreeSet<(Party, Party)>;

/// Lines to each node of a cluster, for its data and for what nodes say to each other. Dropping it ends all connections.
pub(crate) struct Lines {
    /// The ports under which the others reach each node.
    ports: Vec<Ports>,
    shared: Arc<Shared>,
    /// The thread that does the work, and what tells it to end; `None` only while being dropped.
    running: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

struct Shared {
    cuts: watch::Sender<Cuts>,
    /// Where the nodes are. Empty until they are started: connections wait for that.
    targets: watch::Sender<Vec<Ports>>,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) data: u16,
    pub(crate) bus: u16,
}

/// The address from which a node is to connect to the others.
pub(crate) fn address_of(node: usize) -> Ipv4Addr {
    let last = u8::try_from(node + 1).unwrap_or_else(|_| panic!("a cluster with lines has 255 nodes at most"));
    Ipv4Addr::new(127, 0, 1, last)
}

impl Lines {
    /// Lines to so many nodes, which are yet to be started.
    pub(crate) fn start(nodes: usize) -> Self {
        let laid = |_| -> io::Result<_> { Ok((listen()?, listen()?)) };
        let laid: Vec<_> = (0..nodes).map(laid).collect::<Result<_, _>>().unwrap_or_else(cannot);
        let ports = laid.iter().map(|((data, _), (bus, _))| Ports { data: *data, bus: *bus }).collect();
        let shared =
            Arc::new(Shared { cuts: watch::Sender::new(Cuts::new()), targets: watch::Sender::new(Vec::new()) });
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn({
            let shared = shared.clone();
            move || run(laid.into_iter().map(|((_, data), (_, bus))| (data, bus)).collect(), shared, ended)
        });
        Self { ports, shared, running: Some((end, thread)) }
    }

    /// Where the others reach a node.
    pub(crate) fn ports(&self, node: usize) -> Ports {
        self.ports[node]
    }

    /// The nodes are started, and listen here.
    pub(crate) fn lead_to(&self, nodes: Vec<Ports>) {
        self.shared.targets.send_replace(nodes);
    }

    pub(crate) fn cut(&self, one: Party, other: Party) {
        self.shared.cuts.send_modify(|cuts| {
            cuts.insert(line(one, other));
        });
    }

    pub(crate) fn mend(&self) {
        self.shared.cuts.send_modify(Cuts::clear);
    }
}

// A test may look on while a use of the cluster panics: what is cut stays cut, and nothing of this is half-way.
impl UnwindSafe for Lines {}
impl RefUnwindSafe for Lines {}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            drop(end);
            // Its panic, if it had one, was printed.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines")
            .field("ports", &self.ports)
            .field("cuts", &*self.shared.cuts.borrow())
            .finish_non_exhaustive()
    }
}

fn line(one: Party, other: Party) -> (Party, Party) {
    (one.min(other), one.max(other))
}

/// A port of its own, and what listens there.
fn listen() -> io::Result<(u16, TcpListener)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?.port(), listener))
}

fn cannot<T>(error: io::Error) -> T {
    panic!("the lines of a cluster cannot be laid: {error}")
}

fn run(listeners: Vec<(TcpListener, TcpListener)>, shared: Arc<Shared>, ended: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(cannot);
    runtime.block_on(async {
        for (node, (data, bus)) in listeners.into_iter().enumerate() {
            tokio::spawn(accept(data, node, |ports| ports.data, shared.clone()));
            tokio::spawn(accept(bus, node, |ports| ports.bus, shared.clone()));
        }
        // It ends when its sender is dropped, and all connections with the runtime.
        let _ = ended.await;
    });
}

async fn accept(listener: TcpListener, node: usize, port: fn(&Ports) -> u16, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap_or_else(cannot);
    loop {
        // An error here is about one connection that has gone again.
        let Ok((stream, from)) = listener.accept().await else { continue };
        tokio::spawn(connect(stream, from.ip(), node, port, shared.clone()));
    }
}

async fn connect(near: TcpStream, from: IpAddr, node: usize, port: fn(&Ports) -> u16, shared: Arc<Shared>) {
    let (mut cuts, mut targets) = (shared.cuts.subscribe(), shared.targets.subscribe());
    let Ok(target) = targets.wait_for(|nodes| !nodes.is_empty()).await.map(|nodes| port(&nodes[node])) else { return };
    let count = targets.borrow().len();
    let from = (0..count).find(|node| address_of(*node) == from).map_or(Party::Clients, Party::Node);
    let line = line(from, Party::Node(node));
    passes(&mut cuts, line).await;
    // No server: who comes sees the connection end at once, which says the same.
    let Ok(far) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target))).await else { return };
    for stream in [&near, &far] {
        // It only costs time if this fails.
        let _ = stream.set_nodelay(true);
    }
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    tokio::join!(carry(from_near, to_far, cuts.clone(), line), carry(from_far, to_near, cuts, line));
}

/// Waits until nothing keeps what is sent on this line.
async fn passes(cuts: &mut watch::Receiver<Cuts>, line: (Party, Party)) {
    // The sender goes with the runtime, and then all of this does.
    let _ = cuts.wait_for(|cuts| !cuts.contains(&line)).await;
}

/// Carries what comes, and the end of it. What is on its way when the line is cut comes late, as packets do that are sent
/// again until they come through.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cuts: watch::Receiver<Cuts>, line: (Party, Party)) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        passes(&mut cuts, line).await;
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
    passes(&mut cuts, line).await;
    // Dropping its half says the same to whoever reads it; an error means that he has gone.
    let _ = to.shutdown().await;
}
