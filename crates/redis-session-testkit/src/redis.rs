//! A redis-server of the test's own: started on a free port, ended with the test, paused or killed at will.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    panic::resume_unwind,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    connection::{Connection, PATIENCE},
    process::{self, Process, TempDir},
    resp::Reply,
};

const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// How long a look at a server takes that may be dead or frozen.
const A_LOOK: Duration = Duration::from_millis(500);
/// The name of the unix socket, in the server's directory.
const SOCKET: &str = "redis.sock";
/// The names of its settings and its log, there too.
const SETTINGS: &str = "redis.conf";
const LOG: &str = "redis.log";

/// A redis-server process on a loopback port, empty, keeping nothing on disk unless told to; dropping it ends it.
///
/// Its methods block (briefly) and panic when the server does not answer.
///
/// ```
/// use redis_session_testkit::RedisServer;
///
/// let redis = RedisServer::start();
/// redis.run(&["SET", "greeting", "hello", "EX", "60"]);
/// assert_eq!(redis.run(&["GET", "greeting"]).text(), "hello");
/// assert_eq!(redis.command_counts()["GET"], 1);
///
/// redis.restart(); // on the same port, and empty
/// assert!(redis.run(&["GET", "greeting"]).is_nil());
/// ```
pub struct RedisServer {
    port: u16,
    /// `None`: it speaks no TLS.
    tls_port: Option<u16>,
    /// Its settings of TLS.
    tls: Vec<(String, String)>,
    /// `None`: it is no node of a cluster.
    bus_port: Option<u16>,
    /// Of the default user. `None`: it takes none.
    password: Option<String>,
    kind: Kind,
    state: Mutex<State>,
    dir: TempDir,
}

/// A [`RedisServer`] that is still to be started, from [`RedisServer::options`].
///
/// ```
/// use redis_session_testkit::RedisServer;
///
/// let redis = RedisServer::options().unix_socket().user("shop", "secret", "~sess:* +get").start();
/// assert_eq!(redis.run(&["ACL", "USERS"]).texts(), ["default", "shop"]);
/// assert!(redis.unix_url().starts_with("redis+unix:///"));
/// assert!(redis.url_of("shop", "secret").starts_with("redis://shop:secret@127.0.0.1:"));
/// ```
#[derive(Debug)]
#[must_use = "nothing is started before `start`"]
pub struct RedisOptions {
    settings: Vec<(String, String)>,
    dir: TempDir,
    password: Option<String>,
    tls: bool,
    kind: Kind,
}

/// What a redis-server is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    ClusterNode,
    Sentinel,
}

impl RedisOptions {
    fn new() -> Self {
        Self { settings: Vec::new(), dir: TempDir::new(), password: None, tls: false, kind: Kind::Single }
    }

    pub(crate) fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// A setting as in `redis.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on a unix socket too: [`RedisServer::unix_url`].
    pub fn unix_socket(self) -> Self {
        let socket = self.dir.path().join(SOCKET);
        self.setting("unixsocket", &quoted(&socket.to_string_lossy()))
    }

    /// The password of the default user. The test's own commands say it, and so do the servers of a topology to each other.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.setting("requirepass", &quoted(password)).setting("masterauth", &quoted(password))
    }

    /// Adds a user with a password, and with rights as in an ACL rule: `~sess:* +get`. The default user keeps all rights,
    /// since the test itself comes as that one.
    pub fn user(self, name: &str, password: &str, rights: &str) -> Self {
        self.setting("user", &format!("{name} on >{password} {rights}"))
    }

    /// Speaks TLS too, on a port of its own ([`RedisServer::tls_url`]), and shows this certificate. A client need not
    /// show one; if it does, it must be one of these authority's. Servers of a topology speak TLS to each other, and show
    /// these certificates on both sides: there the authority must be the one of the servers.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, server: &crate::Identity, clients: &crate::Authority) -> Self {
        self.tls = true;
        let files = [
            ("tls-cert-file", "server.crt", server.certificate.clone()),
            ("tls-key-file", "server.key", server.key.clone()),
            ("tls-ca-cert-file", "clients.crt", clients.pem()),
        ];
        let mut options = self
            .setting("tls-auth-clients", "optional")
            .setting("tls-replication", "yes")
            .setting("tls-cluster", "yes");
        for (setting, name, text) in files {
            let path = options.dir.path().join(name);
            fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
            options = options.setting(setting, &quoted(&path.to_string_lossy()));
        }
        options
    }

    /// TLS as this server has it, if it has. Its files are that one's, which must live longer.
    pub(crate) fn tls_as(mut self, other: &RedisServer) -> Self {
        self.tls = other.tls_port.is_some();
        self.settings.extend(other.tls.iter().cloned());
        self
    }

    /// Lets nobody in by TLS who shows no certificate (`tls-auth-clients yes`).
    #[cfg(feature = "tls")]
    pub fn only_clients_with_certificates(self) -> Self {
        self.setting("tls-auth-clients", "yes")
    }

    /// Starts the server. The program is `redis-server`, or what the environment variable `REDIS_SERVER` names.
    #[must_use]
    pub fn start(self) -> RedisServer {
        let Self { settings, dir, password, tls, kind } = self;
        let (tls_port, bus_port, state) = (None, None, Mutex::default());
        let of_tls = settings.iter().filter(|(name, _)| name.starts_with("tls-")).cloned().collect();
        let mut server = RedisServer { port: 0, tls_port, tls: of_tls, bus_port, password, kind, state, dir };
        for _ in 0..50 {
            server.port = free_port();
            server.tls_port = tls.then(free_port);
            // Redis's own choice is 10,000 above, where the system may have given it to anybody.
            server.bus_port = (kind == Kind::ClusterNode).then(free_port);
            server.write(&settings);
            // Another test may have taken the port between the look and the start: then the next one.
            if server.launch() {
                return server;
            }
        }
        panic!("no free port for redis-server in 50 attempts; its last words:\n{}", server.last_words())
    }
}

#[derive(Default)]
struct State {
    /// `None` while the server is killed.
    process: Option<Process>,
    /// `None` until the first command, and after a kill.
    connection: Option<Connection>,
    /// How many INFO calls of ours the server has counted.
    infos: u64,
}

impl RedisServer {
    /// Starts a server with the settings of Redis, except that nothing is saved.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with settings of its own, as in `redis.conf`.
    ///
    /// ```
    /// # use redis_session_testkit::RedisServer;
    /// let redis = RedisServer::start_with(&[("hash-max-listpack-value", "1024"), ("maxmemory", "50mb")]);
    /// assert_eq!(redis.run(&["CONFIG", "GET", "maxmemory"]).map()["maxmemory"], "52428800");
    /// ```
    #[must_use]
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        settings.iter().fold(Self::options(), |options, (name, value)| options.setting(name, value)).start()
    }

    /// Settings, users, TLS and a unix socket, and then [`start`](RedisOptions::start).
    pub fn options() -> RedisOptions {
        RedisOptions::new()
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, for a [`Proxy`](crate::Proxy).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The address as an application is told it: `redis://127.0.0.1:PORT`, with the [`password`](RedisOptions::password)
    /// where there is one: `redis://:PASSWORD@127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}127.0.0.1:{}", self.credentials(), self.port)
    }

    /// The same for a user: `redis://USER:PASSWORD@127.0.0.1:PORT`. What a URL does not hold must be percent-encoded.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// The address by TLS: `rediss://127.0.0.1:PORT`; panics if it was not started with it.
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.tls_port())
    }

    /// The port on which it speaks TLS; panics if it was not started with it.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.tls_port.unwrap_or_else(|| panic!("redis-server on port {} was not started with TLS", self.port))
    }

    /// The address by its unix socket: `redis+unix:///PATH`; nobody is there if it was not started with one.
    #[must_use]
    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.dir.path().join(SOCKET).display())
    }

    /// Runs a command that must work: panics if Redis answers with an error.
    pub fn run<A: AsRef<[u8]>>(&self, command: &[A]) -> Reply {
        let reply = self.command(command);
        if let Reply::Error(error) = &reply {
            let words: Vec<_> = command.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect();
            panic!("redis refused {}: {error}", words.join(" "));
        }
        reply
    }

    /// Runs a command and returns what Redis answers, be it an error.
    pub fn command<A: AsRef<[u8]>>(&self, command: &[A]) -> Reply {
        self.state().command(self, command)
    }

    /// Stops the process as a frozen machine would: connections stay open, and nothing answers.
    pub fn pause(&self) {
        let process = self.signal("STOP");
        // The signal only asks: until it has arrived in all threads, a command may still run.
        until(&format!("redis-server on port {} does not stop", self.port), || process::is_stopped(process));
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        let _ = self.signal("CONT");
    }

    /// Ends the process at once (SIGKILL): what is not on disk is gone. Does nothing if it is dead already.
    pub fn kill(&self) {
        *self.state() = State::default();
    }

    /// Ends the process as a service manager does (SIGTERM), and waits for it: with a setting `save`, it first writes its
    /// data. Does nothing if it is dead already.
    pub fn stop(&self) {
        let mut state = self.state();
        let Some(process) = &mut state.process else { return };
        process::signal("TERM", &process.id().to_string());
        until(&format!("redis-server on port {} does not stop", self.port), || process.ended().is_some());
        *state = State::default();
    }

    /// Starts the server again on the same port; kills it first if it runs. It is empty, unless a setting made it write
    /// to disk (`appendonly`, `save`). A node of a cluster comes back as itself, and so do a sentinel and a server that
    /// sentinels look after.
    ///
    /// ```
    /// # use redis_session_testkit::RedisServer;
    /// let redis = RedisServer::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]);
    /// redis.run(&["SET", "greeting", "hello"]);
    /// redis.kill();
    /// redis.restart();
    /// assert_eq!(redis.run(&["GET", "greeting"]).text(), "hello");
    /// ```
    pub fn restart(&self) {
        self.kill();
        until(&format!("redis-server does not start again on port {}", self.port), || self.launch());
    }

    /// How often each command ran since the start or [`reset_stats`](Self::reset_stats), from `INFO commandstats`.
    ///
    /// Names are in capitals (`HGETALL`, `CLIENT|SETNAME`). What scripts call counts too; the calls that this
    /// server's own statistics need do not, those of [`run`](Self::run) do.
    #[must_use]
    pub fn command_counts(&self) -> BTreeMap<String, u64> {
        let mut state = self.state();
        let ours = state.infos;
        let mut counts = BTreeMap::new();
        for line in state.info(self, "commandstats").lines() {
            let Some((name, rest)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls=")) else {
                continue;
            };
            let calls: u64 = rest.split(',').next().and_then(|calls| calls.parse().ok()).unwrap_or(0);
            let calls = match name {
                "info" => calls.saturating_sub(ours),
                "config|resetstat" => 0,
                _ => calls,
            };
            if calls > 0 {
                counts.insert(name.to_uppercase(), calls);
            }
        }
        counts
    }

    /// How often one command ran, whatever the case of its name.
    #[must_use]
    pub fn command_count(&self, name: &str) -> u64 {
        self.command_counts().get(&name.to_uppercase()).copied().unwrap_or(0)
    }

    /// Sets the counts to zero.
    pub fn reset_stats(&self) {
        self.run(&["CONFIG", "RESETSTAT"]);
        self.state().infos = 0;
    }

    /// How many bytes a key and its value take, from `MEMORY USAGE`; panics if there is no such key.
    #[must_use]
    pub fn memory_of(&self, key: &str) -> u64 {
        match self.run(&["MEMORY", "USAGE", key, "SAMPLES", "0"]) {
            Reply::Int(bytes) => u64::try_from(bytes).unwrap_or(0),
            _ => panic!("redis has no key {key:?}"),
        }
    }

    /// The processor time that the server has used, in user and system mode, from `INFO cpu`.
    #[must_use]
    pub fn used_cpu_micros(&self) -> u64 {
        let info = self.state().info(self, "cpu");
        let part = |name: &str| -> Duration {
            let seconds = field(&info, name).and_then(|seconds| seconds.parse().ok());
            seconds.map(Duration::from_secs_f64).unwrap_or_else(|| panic!("redis does not say {name}"))
        };
        let used = part("used_cpu_user") + part("used_cpu_sys");
        u64::try_from(used.as_micros()).unwrap_or(u64::MAX)
    }

    /// Writes `redis.conf`. A file, so that Redis can keep there what it changes by itself (`CONFIG REWRITE`).
    fn write(&self, settings: &[(String, String)]) {
        let ports = [("port", Some(self.port)), ("tls-port", self.tls_port), ("cluster-port", self.bus_port)];
        let ports = ports.into_iter().filter_map(|(name, port)| Some((name.to_owned(), port?.to_string())));
        let dir = quoted(&self.dir.path().to_string_lossy());
        let ours = [("bind", "127.0.0.1"), ("dir", &dir), ("save", ""), ("appendonly", "no")];
        let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut text = String::new();
        for (name, value) in ours.into_iter().chain(ports).chain(settings.iter().cloned()) {
            let value = if value.is_empty() { r#""""# } else { &value };
            let _ = writeln!(text, "{name} {value}");
        }
        let file = self.dir.path().join(SETTINGS);
        fs::write(&file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }

    /// Starts the process, and waits until it answers. `false`: it ended, most likely since a port was taken.
    fn launch(&self) -> bool {
        let dir = self.dir.path();
        // One file for both: a wrong setting is told on stderr, everything else on stdout.
        let log = fs::File::create(dir.join(LOG)).and_then(|log| Ok((log.try_clone()?, log)));
        let (log, errors) = log.unwrap_or_else(|error| panic!("cannot write in {}: {error}", dir.display()));
        let mut command = Command::new(program());
        command.arg(dir.join(SETTINGS)).args((self.kind == Kind::Sentinel).then_some("--sentinel"));
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut process = Process::start(&mut command, "redis-server", &self.dir);

        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if process.ended().is_some() {
                let words = self.last_words();
                // Another port does not help against a wrong setting, which Redis 8 takes for one of a module's.
                let refused = ["FATAL CONFIG FILE ERROR", "Unresolved Configuration(s)"];
                let is_refused = refused.iter().any(|refused| words.contains(refused));
                assert!(!is_refused, "redis-server refuses its settings:\n{words}");
                return false;
            }
            if self.is_there_as(process.id()) {
                *self.state() = State { process: Some(process), connection: None, infos: 1 };
                return true;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        panic!("redis-server does not answer on port {}; its last words:\n{}", self.port, self.last_words())
    }

    /// Whether the server on this port is the process that was started, not that of another test, and has read its data.
    fn is_there_as(&self, process: u32) -> bool {
        match self.connect(PATIENCE).and_then(|mut connection| connection.ask(&["INFO"])) {
            Ok(Reply::Text(info)) => {
                let info = String::from_utf8_lossy(&info);
                field(&info, "process_id") == Some(&process.to_string()) && field(&info, "loading") != Some("1")
            }
            _ => false,
        }
    }

    fn connect(&self, patience: Duration) -> io::Result<Connection> {
        Connection::open(self.port, self.password.as_deref(), patience)
    }

    fn credentials(&self) -> String {
        self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default()
    }

    /// Runs a command on a key whose slot is on its way to this node of a cluster.
    pub(crate) fn command_asking<A: AsRef<[u8]>>(&self, command: &[A]) -> Reply {
        let mut state = self.state();
        let _ = state.command(self, &["ASKING"]);
        state.command(self, command)
    }

    /// Whether it was neither killed nor paused.
    pub(crate) fn is_up(&self) -> bool {
        self.state().process.as_ref().is_some_and(|process| !process::is_stopped(process.id()))
    }

    /// What it answers within a moment. `None`: it is dead or frozen, or does not get that far.
    pub(crate) fn look(&self, command: &[&str]) -> Option<Reply> {
        if !self.is_up() {
            return None;
        }
        self.connect(A_LOOK).and_then(|mut connection| connection.ask(command)).ok()
    }

    /// The password of its default user.
    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The port at which other servers reach it, and which it announces to them.
    pub(crate) fn announced_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// The port on which the nodes of a cluster speak to each other.
    pub(crate) fn bus_port(&self) -> u16 {
        self.bus_port.unwrap_or_else(|| panic!("redis-server on port {} is no node of a cluster", self.port))
    }

    /// Sends a signal, and says to which process.
    fn signal(&self, name: &str) -> u32 {
        let state = self.state();
        let Some(process) = &state.process else { panic!("redis-server on port {} is not running", self.port) };
        process::signal(name, &process.id().to_string());
        process.id()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked with the lock held has said what is wrong already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisServer").field("port", &self.port).finish_non_exhaustive()
    }
}

impl State {
    fn command<A: AsRef<[u8]>>(&mut self, server: &RedisServer, command: &[A]) -> Reply {
        assert!(self.process.is_some(), "redis-server on port {} is not running", server.port);
        let asked = self.connection(server).and_then(|connection| connection.ask(command));
        asked.unwrap_or_else(|error| {
            // What may still arrive on this connection would be taken for the next answer.
            self.connection = None;
            panic!("redis-server on port {} does not answer (is it paused?): {error}", server.port)
        })
    }

    fn connection(&mut self, server: &RedisServer) -> io::Result<&mut Connection> {
        // Redis closes it at the end of a failover, say.
        self.connection.take_if(|connection| !connection.is_open());
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(server.connect(PATIENCE)?)),
        }
    }

    fn info(&mut self, server: &RedisServer, section: &str) -> String {
        self.infos += 1;
        self.command(server, &["INFO", section]).text()
    }
}

/// `REDIS_SERVER`, so that the same tests run on another version, or on Valkey.
fn program() -> OsString {
    std::env::var_os("REDIS_SERVER").filter(|name| !name.is_empty()).unwrap_or_else(|| "redis-server".into())
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Starts them at the same time.
pub(crate) fn start_all(all: impl IntoIterator<Item = RedisOptions>) -> Vec<RedisServer> {
    thread::scope(|scope| {
        let starts: Vec<_> = all.into_iter().map(|options| scope.spawn(|| options.start())).collect();
        starts.into_iter().map(|start| start.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Waits until a condition holds; panics with these words where it does not come.
pub(crate) fn until(otherwise: &str, mut condition: impl FnMut() -> bool) {
    until_found(otherwise, || condition().then_some(()));
}

/// Waits until there is something, and returns it; panics with these words where it does not come.
pub(crate) fn until_found<T>(otherwise: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{otherwise}");
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// A value of a setting that may hold blanks.
pub(crate) fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A port that was free a moment ago.
///
/// Below those that the system hands out: such a one could become the near end of somebody's connection while the
/// server is killed, and then it could not be restarted.
fn free_port() -> u16 {
    loop {
        let port = 20_000 + u16::try_from(RandomState::new().hash_one(0) % 12_000).unwrap_or(0);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
