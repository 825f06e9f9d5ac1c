//! A redis-server of the test's own: started on a free port, ended with the test, paused or killed at will.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
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
/// The name of the unix socket, in the server's directory.
const SOCKET: &str = "redis.sock";

/// A redis-server process on a loopback port, empty, keeping nothing on disk; dropping it ends it.
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
    settings: Vec<(String, String)>,
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
    tls: bool,
}

impl RedisOptions {
    fn new() -> Self {
        Self { settings: Vec::new(), dir: TempDir::new(), tls: false }
    }

    /// A setting as in `redis.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on a unix socket too: [`RedisServer::unix_url`].
    pub fn unix_socket(self) -> Self {
        let socket = self.dir.path().join(SOCKET);
        self.setting("unixsocket", &socket.to_string_lossy())
    }

    /// Adds a user with a password, and with rights as in an ACL rule: `~sess:* +get`. The default user keeps all rights,
    /// since the test itself comes as that one.
    pub fn user(self, name: &str, password: &str, rights: &str) -> Self {
        self.setting("user", &format!("{name} on >{password} {rights}"))
    }

    /// Speaks TLS too, on a port of its own ([`RedisServer::tls_url`]), and shows this certificate. A client need not
    /// show one; if it does, it must be one of these authority's.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, server: &crate::Identity, clients: &crate::Authority) -> Self {
        self.tls = true;
        let files = [
            ("tls-cert-file", "server.crt", server.certificate.clone()),
            ("tls-key-file", "server.key", server.key.clone()),
            ("tls-ca-cert-file", "clients.crt", clients.pem()),
        ];
        let mut options = self.setting("tls-auth-clients", "optional");
        for (setting, name, text) in files {
            let path = options.dir.path().join(name);
            fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
            options = options.setting(setting, &path.to_string_lossy());
        }
        options
    }

    /// Lets nobody in by TLS who shows no certificate (`tls-auth-clients yes`).
    #[cfg(feature = "tls")]
    pub fn only_clients_with_certificates(self) -> Self {
        self.setting("tls-auth-clients", "yes")
    }

    /// Starts the server. The program is `redis-server`, or what the environment variable `REDIS_SERVER` names.
    #[must_use]
    pub fn start(self) -> RedisServer {
        let Self { settings, dir, tls } = self;
        for _ in 0..50 {
            let port = free_port();
            let tls_port = tls.then(free_port);
            let mut all = settings.clone();
            all.extend(tls_port.map(|port| ("tls-port".to_owned(), port.to_string())));
            // Another test may have taken the port between the look and the start: then the next one.
            if let Started::Answers(state) = launch(port, &all, &dir) {
                return RedisServer { port, tls_port, settings: all, state: Mutex::new(state), dir };
            }
        }
        panic!("no free port for redis-server in 50 attempts; its last words:\n{}", last_words(&dir))
    }
}

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

    /// The address as an application is told it: `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
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
        self.state().command(self.port, command)
    }

    /// Stops the process as a frozen machine would: connections stay open, and nothing answers.
    pub fn pause(&self) {
        let process = self.signal("STOP");
        let deadline = Instant::now() + PATIENCE;
        // The signal only asks: until it has arrived in all threads, a command may still run.
        while !process::is_stopped(process) {
            assert!(Instant::now() < deadline, "redis-server on port {} does not stop", self.port);
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        let _ = self.signal("CONT");
    }

    /// Ends the process at once; its data are gone. Does nothing if it is dead already.
    pub fn kill(&self) {
        let mut state = self.state();
        state.connection = None;
        state.process = None;
    }

    /// Starts the server again on the same port, empty; kills it first if it runs.
    pub fn restart(&self) {
        self.kill();
        let mut state = self.state();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Started::Answers(new) = launch(self.port, &self.settings, &self.dir) {
                *state = new;
                return;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        panic!("redis-server does not start again on port {}; its last words:\n{}", self.port, last_words(&self.dir))
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
        for line in state.info(self.port, "commandstats").lines() {
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
        let info = self.state().info(self.port, "cpu");
        let part = |name: &str| -> Duration {
            let seconds = field(&info, name).and_then(|seconds| seconds.parse().ok());
            seconds.map(Duration::from_secs_f64).unwrap_or_else(|| panic!("redis does not say {name}"))
        };
        let used = part("used_cpu_user") + part("used_cpu_sys");
        u64::try_from(used.as_micros()).unwrap_or(u64::MAX)
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
        f.debug_struct("RedisServer")
            .field("port", &self.port)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl State {
    fn command<A: AsRef<[u8]>>(&mut self, port: u16, command: &[A]) -> Reply {
        assert!(self.process.is_some(), "redis-server on port {port} is not running");
        let asked = self.connection(port).and_then(|connection| connection.ask(command));
        asked.unwrap_or_else(|error| {
            // What may still arrive on this connection would be taken for the next answer.
            self.connection = None;
            panic!("redis-server on port {port} does not answer (is it paused?): {error}")
        })
    }

    fn connection(&mut self, port: u16) -> io::Result<&mut Connection> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(Connection::open(port)?)),
        }
    }

    fn info(&mut self, port: u16, section: &str) -> String {
        self.infos += 1;
        self.command(port, &["INFO", section]).text()
    }
}

enum Started {
    Answers(State),
    /// The process ended, most likely since the port was taken.
    Ended,
}

fn launch(port: u16, settings: &[(String, String)], dir: &TempDir) -> Started {
    // One file for both: a wrong setting is told on stderr, everything else on stdout.
    let log = fs::File::create(dir.path().join("redis.log")).and_then(|log| Ok((log.try_clone()?, log)));
    let (log, errors) = log.unwrap_or_else(|error| panic!("cannot write in {}: {error}", dir.path().display()));
    let mut command = Command::new(program());
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--port").arg(port.to_string()).arg("--dir").arg(dir.path());
    for (name, value) in settings {
        command.arg(format!("--{name}"));
        match name.as_str() {
            "user" => command.args(value.split(' ')),
            _ => command.arg(value),
        };
    }
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    let mut process = Process::start(&mut command, "redis-server", dir);

    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if process.ended().is_some() {
            let words = last_words(dir);
            // Another port does not help against a wrong setting.
            assert!(!words.contains("FATAL CONFIG FILE ERROR"), "redis-server refuses its settings:\n{words}");
            return Started::Ended;
        }
        if answers_as(process.id(), port) {
            let connection = None;
            return Started::Answers(State { process: Some(process), connection, infos: 1 });
        }
        thread::sleep(BETWEEN_LOOKS);
    }
    panic!("redis-server does not answer on port {port}; its last words:\n{}", last_words(dir))
}

/// `REDIS_SERVER`, so that the same tests run on another version, or on Valkey.
fn program() -> OsString {
    std::env::var_os("REDIS_SERVER").filter(|name| !name.is_empty()).unwrap_or_else(|| "redis-server".into())
}

/// Whether the server on this port is the process that was started, and not that of another test.
fn answers_as(process: u32, port: u16) -> bool {
    let info = Connection::open(port).and_then(|mut connection| connection.ask(&["INFO", "server"]));
    match info {
        Ok(Reply::Text(info)) => field(&String::from_utf8_lossy(&info), "process_id") == Some(&process.to_string()),
        _ => false,
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

fn last_words(dir: &TempDir) -> String {
    fs::read_to_string(dir.path().join("redis.log")).unwrap_or_default()
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
