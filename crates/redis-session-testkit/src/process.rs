//! Programs that a test starts: found or named as missing, ended with the test, and with a test process that dies.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use std::os::unix::process::CommandExt as _;

/// A running program in a process group of its own; dropping it ends the whole group.
pub(crate) struct Process {
    child: Child,
    guard: Child,
}

impl Process {
    /// Starts `command`, or panics with the name of the package that brings it.
    ///
    /// `dir` is removed should this process die without dropping anything.
    pub(crate) fn start(command: &mut Command, package: &str, dir: &TempDir) -> Self {
        // An own group: Ctrl-C must reach neither the program (its end would look like a bug) nor the guard.
        let child = command.process_group(0).spawn().unwrap_or_else(|error| {
            let program = command.get_program().to_string_lossy();
            match error.kind() {
                std::io::ErrorKind::NotFound => {
                    panic!("{program} is not installed: apt-get install {package}")
                }
                _ => panic!("{program} does not start: {error}"),
            }
        });
        let guard = guard(child.id(), dir.path());
        Self { child, guard }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the program ended; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard goes first: once the child is waited for, its id may belong to somebody else.
        end(&mut self.guard);
        signal("KILL", &format!("-{}", self.child.id()));
        end(&mut self.child);
    }
}

// The guard reads from a pipe that only this process can write to: it ends when this process does, however that comes.
// (A static is never dropped, and neither is anything after an abort or SIGKILL.)
fn guard(group: u32, dir: &Path) -> Child {
    Command::new("sh")
        .args(["-c", r#"read -r _; kill -s KILL -- "$1"; sleep 0.2; rm -rf -- "$2""#, "guard"])
        .arg(format!("-{group}"))
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("sh does not start: {error}"))
}

/// Sends a signal by name; a negative `target` is a process group.
pub(crate) fn signal(name: &str, target: &str) {
    // The shell's own `kill`: it is there when the program of that name is not.
    let sent = Command::new("sh")
        .args(["-c", r#"kill -s "$1" -- "$2""#, "signal", name, target])
        .stderr(Stdio::null())
        .status();
    if let Err(error) = sent {
        panic!("sh does not start: {error}");
    }
}

/// Whether all threads of a process are stopped; where there is no `/proc`, that is taken for granted.
pub(crate) fn is_stopped(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return true };
    let states = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    // The name before the state is in parentheses, and may hold some itself.
    states.into_iter().all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
}

fn end(child: &mut Child) {
    // Both fail only if it has ended already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// An empty directory that is removed on drop.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("redis-session-testkit-{}-{count}", process::id()));
        // What an earlier process of the same id left behind is nobody's.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A program's children may write for a moment after it was killed.
        for _ in 0..20 {
            if fs::remove_dir_all(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            thread::sleep(Duration::from_millis(25));
        }
    }
}
