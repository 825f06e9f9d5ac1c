//! The contenders, and a server process of one.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::cpu;
use crate::load::Route;
use crate::serve::READY;

/// Who is measured. One more of this program's own needs a line here and in `servers`; a program of its own needs only
/// to be named in `BENCH_ALSO`.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    /// `None`: this program itself.
    program: Option<PathBuf>,
    pub(crate) routes: &'static [Route],
}

impl Contender {
    fn own(name: &str, routes: &'static [Route]) -> Self {
        Self { name: name.to_owned(), program: None, routes }
    }

    /// All of this program's own.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::own("bare", &[Route::Untouched]),
            Self::own("layered", &[Route::Untouched]),
            Self::own("floor", &Route::ALL),
            Self::own("floor-resp2", &Route::ALL),
            Self::own("redis", &Route::ALL),
            Self::own("user", &Route::ALL),
            Self::own("cluster", &Route::ALL),
            Self::own("memory", &Route::ALL),
        ]
    }

    /// Whether its Redis is a cluster, of one server.
    pub(crate) fn is_on_a_cluster(&self) -> bool {
        self.name == "cluster"
    }

    /// The other libraries, by the program in `benches/peers`. `None`: it was not built.
    pub(crate) fn peers() -> Option<Vec<Self>> {
        let of_cargo = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.join("peers")));
        let of_its_own = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/target/release/peers");
        let program = of_cargo.into_iter().chain([of_its_own]).find(|program| program.is_file())?;
        let names = ["tower-sessions", "tower-sliding", "bridge", "axum_session", "actix-session"];
        Some(names.map(|name| Self::of_program(name, program.clone())).into())
    }

    /// Another program that does what `serve.rs` says, called with the contender's name.
    pub(crate) fn of_program(name: &str, program: impl Into<PathBuf>) -> Self {
        Self { name: name.to_owned(), program: Some(program.into()), routes: &Route::ALL }
    }

    /// Starts a server process.
    pub(crate) fn start(&self, redis_url: &str) -> io::Result<Server> {
        let mut command = match &self.program {
            Some(program) => Command::new(program),
            None => {
                let mut own = Command::new(std::env::current_exe()?);
                own.arg("serve");
                own
            }
        };
        command.arg(&self.name).env("REDIS_URL", redis_url).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let stdin = process.stdin.take();
        let address = first_line(&mut process)
            .and_then(|line| line.trim().strip_prefix(READY)?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("the server of {:?} does not start", self.name)))?;
        Ok(Server { process, _stdin: stdin, address })
    }
}

fn first_line(process: &mut Child) -> Option<String> {
    let mut line = String::new();
    BufReader::new(process.stdout.take()?).read_line(&mut line).ok()?;
    Some(line)
}

/// A running server, ended on drop.
pub(crate) struct Server {
    process: Child,
    /// Held open: its end is what ends the server, also when this process dies.
    _stdin: Option<ChildStdin>,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// The processor time that the server has used so far.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        cpu::used_by(self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
