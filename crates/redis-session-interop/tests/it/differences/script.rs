//! The steps that a case is made of, and how one side goes through them.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use redis_session_testkit::{Action, Browser, Page};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::handler::GATE;
use super::sides::{Place, Setting, Side};

/// Longer than any deadline of ours, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);
/// Ours by default.
const DEADLINE: Duration = Duration::from_millis(250);
/// Where nothing befalls Redis: a busy machine is no outage.
const LONG_DEADLINE: Duration = Duration::from_secs(2);

/// What a case does next. Requests are made by the visitor of the moment, at first one without a cookie. A request whose
/// answer is not a 200 is always part of what is observed.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// A request, by its handler's words.
    Ask(&'static str),
    /// The same, and what it says is observed.
    See(&'static str),
    /// The same, and how many commands it sent to Redis.
    Count(&'static str),
    /// The same to another path.
    SeeAt(&'static str, &'static str),
    /// The same with Cookie lines made from the cookie's name and value.
    SeeWith(fn(&str, &str) -> Vec<Vec<u8>>, &'static str),
    /// A request that waits at a gate of this name.
    Begin(&'static str, &'static str),
    /// Lets it go on, and has its answer arrive.
    Finish(&'static str),
    /// Its client goes away.
    Leave(&'static str),
    /// So many requests of one visitor at once.
    Together(usize, &'static str),
    /// The visitor of the moment is another one.
    Be(&'static str),
    /// Another visitor gets this one's cookie, without an end, as a thief would.
    CopyTo(&'static str),
    /// The visitor goes to another application, with his cookies.
    GoElsewhere,
    /// The visitor makes himself a cookie of this value.
    Forge(&'static str),
    /// … of what Redis shows to whoever may look into it.
    ForgeFromRedis,
    /// What the answer of the last request does to the cookie is observed.
    Cookie,
    /// … and with which attributes.
    Attributes,
    /// Whether its name is the cookie's value is observed of what the last request said.
    IsTheCookie,
    /// Whether the last request and the one before said the same.
    IsTheSame,
    /// Headers of the last answer that tell caches about the session.
    Caching,
    /// How long Redis keeps the session's record.
    Life,
    /// Time passes.
    Milliseconds(u64),
    /// Something happens to Redis, or to the record in it.
    Redis(Happens),
}

#[derive(Clone, Copy)]
pub(super) enum Happens {
    /// The record is gone, as when it has expired or was evicted.
    Gone,
    /// Another type of value is in its place.
    AnotherType,
    /// Bytes in it are broken.
    Broken,
    /// Somebody took its expiry away.
    Persisted,
    /// The process is frozen.
    Frozen,
    Thawed,
    /// Nobody listens any more.
    Away,
    Back,
    /// It became a replica, and takes no writes.
    ReadOnly,
    Writable,
    /// Its scripts are gone.
    Forgetful,
    /// The next write is answered with an error that names no cause.
    Refuses,
}

impl Happens {
    fn is_outage(self) -> bool {
        matches!(self, Self::Frozen | Self::Away | Self::ReadOnly | Self::Refuses)
    }
}

/// What one side has shown.
pub(super) struct Seen {
    pub(super) text: String,
    /// Answers of 500 and above that no handler has asked for.
    pub(super) failures: Vec<String>,
}

/// Goes through the steps on one side.
pub(super) async fn run(side: Side, setting: Setting, steps: &[Step]) -> Seen {
    let is_outage = |step: &Step| matches!(step, Step::Redis(happens) if happens.is_outage());
    let deadline = if steps.iter().any(is_outage) { DEADLINE } else { LONG_DEADLINE };
    let place = Place::open(side, setting, deadline).await;
    let mut run = Run {
        visitors: HashMap::from([("", Browser::new(place.app.clone()))]),
        visitor: "",
        under_way: HashMap::new(),
        said: Vec::new(),
        last: None,
        seen: Vec::new(),
        failures: Vec::new(),
        place,
    };
    run.warm_up().await;
    for step in steps {
        run.step(*step).await;
    }
    // A frozen process cannot be ended.
    run.place.redis.resume();
    Seen { text: run.seen.join("; "), failures: run.failures }
}

type Answer = Option<Page>;

struct Run {
    place: Place,
    visitors: HashMap<&'static str, Browser<Router>>,
    visitor: &'static str,
    under_way: HashMap<&'static str, (&'static str, Browser<Router>, JoinHandle<Answer>)>,
    /// What answers have said, the last one last.
    said: Vec<String>,
    last: Answer,
    seen: Vec<String>,
    failures: Vec<String>,
}

impl Run {
    /// Redis knows ours' scripts from then on, and nobody's record is left.
    async fn warm_up(&mut self) {
        let visitor = Browser::new(self.place.app.clone());
        for words in ["insert a=1", "insert b=1", "flush"] {
            assert_eq!(visitor.send(request("/shop", words)).await.status, 200);
        }
        self.place.redis.run(&["FLUSHDB"]);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Ask(words) => drop(self.ask(words, request("/shop", words)).await),
            Step::See(words) => self.see(words, request("/shop", words)).await,
            Step::SeeAt(path, words) => self.see(words, request(path, words)).await,
            Step::SeeWith(lines, words) => {
                let mut request = request("/shop", words);
                let value = self.browser().cookie(self.place.cookie).unwrap_or_default();
                for line in lines(self.place.cookie, &value) {
                    request.headers_mut().append(header::COOKIE, line.try_into().unwrap());
                }
                self.see(words, request).await;
            }
            Step::Count(words) => {
                self.place.proxy.reset_counts();
                self.ask(words, request("/shop", words)).await;
                let commands = self.commands();
                self.seen.push(commands);
            }
            Step::Begin(name, words) => self.begin(name, words).await,
            Step::Finish(name) => {
                self.place.gates.gate(name).open.add_permits(1);
                let (words, browser, task) = self.under_way.remove(name).expect("it was begun");
                let answer = task.await.ok().flatten();
                self.take(words, &browser, answer);
            }
            Step::Leave(name) => {
                let (_, _, task) = self.under_way.remove(name).expect("it was begun");
                task.abort();
                assert!(task.await.is_err_and(|error| error.is_cancelled()));
            }
            Step::Together(requests, words) => self.together(requests, words).await,
            Step::Be(name) => {
                let stranger = self.browser().stranger();
                self.visitors.entry(name).or_insert(stranger);
                self.visitor = name;
            }
            Step::CopyTo(name) => {
                let copy = self.browser().stranger();
                copy.set_cookie(self.place.cookie, &self.browser().cookie(self.place.cookie).expect("a cookie"));
                self.visitors.insert(name, copy);
            }
            Step::GoElsewhere => {
                let there = Browser::new(self.place.other.clone());
                there.jar().clone_from(&self.browser().jar());
                self.visitors.insert(self.visitor, there);
            }
            Step::Forge(value) => self.browser().set_cookie(self.place.cookie, value),
            Step::ForgeFromRedis => {
                let key = self.place.keys().remove(0);
                let value = key.rsplit(':').next().unwrap_or_default();
                self.browser().set_cookie(self.place.cookie, value);
            }
            Step::Redis(happens) => self.redis(happens),
            Step::Milliseconds(time) => sleep(Duration::from_millis(time)).await,
            Step::Cookie | Step::Attributes | Step::IsTheCookie | Step::IsTheSame | Step::Caching | Step::Life => {
                let seen = self.look(step);
                self.seen.push(seen);
            }
        }
    }

    fn look(&self, step: Step) -> String {
        let lines = self.last.as_ref().map(Page::set_cookies).unwrap_or_default();
        match step {
            Step::Cookie => match lines.as_slice() {
                [] => "no Set-Cookie".to_owned(),
                [line] if line.contains("Max-Age=0") => "the cookie is removed".to_owned(),
                [_] => "a cookie is set".to_owned(),
                lines => format!("{} cookies are set", lines.len()),
            },
            Step::Attributes => lines.iter().map(|line| attributes(line)).collect::<Vec<_>>().join(" and "),
            Step::IsTheCookie => {
                let value = self.browser().cookie(self.place.cookie).unwrap_or_default();
                match !value.is_empty() && self.said.last().is_some_and(|said| *said == value) {
                    true => "the id is the cookie's value".to_owned(),
                    false => "the id is not the cookie's value".to_owned(),
                }
            }
            Step::IsTheSame => match self.said.as_slice() {
                [.., before, now] if before == now => "the same id".to_owned(),
                _ => "another id".to_owned(),
            },
            Step::Caching => {
                let header = |name: &str| self.last.as_ref().and_then(|page| page.header(name));
                let said = ["vary", "cache-control"].map(|name| header(name).map(|value| format!("{name}: {value}")));
                let said: Vec<String> = said.into_iter().flatten().collect();
                if said.is_empty() { "caches are told nothing".to_owned() } else { said.join(", ") }
            }
            _ => self.life(),
        }
    }

    fn browser(&self) -> &Browser<Router> {
        &self.visitors[self.visitor]
    }

    async fn see(&mut self, words: &str, request: Request<Body>) {
        let said = self.ask(words, request).await;
        self.seen.extend(said);
    }

    /// What it says. `None`: its answer is no 200, and is observed already.
    async fn ask(&mut self, words: &str, request: Request<Body>) -> Option<String> {
        let browser = self.browser().clone();
        let answer = send(&browser, request).await.ok().flatten();
        self.take(words, &browser, answer)
    }

    async fn begin(&mut self, name: &'static str, words: &'static str) {
        let mut request = request("/shop", words);
        request.headers_mut().insert(GATE, name.parse().unwrap());
        let browser = self.browser().clone();
        let task = send(&browser, request);
        let gate = self.place.gates.gate(name);
        timeout(PATIENCE, gate.arrived.acquire()).await.expect("it arrives at its gate").unwrap().forget();
        self.under_way.insert(name, (words, browser, task));
    }

    async fn together(&mut self, requests: usize, words: &str) {
        self.place.gates.gather(requests);
        let browser = self.browser().clone();
        let path = if self.place.side == Side::Typed && words.starts_with("count") { "/count" } else { "/shop" };
        let tasks: Vec<_> =
            (0..requests).map(|n| send(&browser, request(path, &words.replace('#', &n.to_string())))).collect();
        for task in tasks {
            let answer = task.await.ok().flatten();
            self.take(words, &browser, answer);
        }
    }

    /// An answer arrives.
    fn take(&mut self, words: &str, browser: &Browser<Router>, answer: Answer) -> Option<String> {
        self.last = answer;
        let Some(page) = &self.last else {
            if !words.contains("panic") {
                self.failures.push(format!("{words}: no answer"));
            }
            self.seen.push(if words.contains("panic") { "a panic" } else { "no answer" }.to_owned());
            return None;
        };
        browser.receive(page);
        let status = page.status.as_u16();
        if status >= 500 && !words.contains("status 5") {
            self.failures.push(format!("{words}: {status}"));
        }
        if status != 200 {
            self.seen.push(status.to_string());
            return None;
        }
        if !page.body.is_empty() {
            self.said.push(page.body.clone());
        }
        Some(page.body.clone())
    }

    fn commands(&self) -> String {
        let counts = self.place.proxy.counts();
        let of = |names: &[&str]| names.iter().filter_map(|name| counts.get(*name)).sum::<u64>();
        let said = |count: u64, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            count => Some(format!("{count} {what}s")),
        };
        let (reads, writes) = (of(&["GET", "HGETALL"]), of(&["SET", "DEL", "EVALSHA", "EVAL"]));
        let said: Vec<String> = [said(reads, "read"), said(writes, "write")].into_iter().flatten().collect();
        if said.is_empty() { "no command".to_owned() } else { said.join(", ") }
    }

    fn life(&self) -> String {
        let lives = |key: &String| self.place.redis.run(&["PTTL", key]).int();
        match self.place.keys().iter().map(lives).max() {
            None | Some(-2) => "no record".to_owned(),
            Some(-1) => "a record for ever".to_owned(),
            Some(milliseconds) => format!("a record for {}", span(milliseconds / 1000)),
        }
    }

    fn redis(&self, happens: Happens) {
        let redis = &self.place.redis;
        let each = |commands: &[&[&str]]| {
            for key in self.place.keys() {
                for command in commands {
                    let command: Vec<&str> =
                        command.iter().map(|word| if *word == "KEY" { &key } else { *word }).collect();
                    redis.run(&command);
                }
            }
        };
        match happens {
            Happens::Gone => each(&[&["DEL", "KEY"]]),
            Happens::AnotherType => each(&[&["DEL", "KEY"], &["RPUSH", "KEY", "another", "program's"]]),
            Happens::Broken if self.place.side == Side::Theirs => each(&[&["SETRANGE", "KEY", "0", "\u{1}\u{2}\u{3}"]]),
            Happens::Broken => each(&[&["HSET", "KEY", "a", "{no json"]]),
            Happens::Persisted => each(&[&["PERSIST", "KEY"]]),
            Happens::Frozen => redis.pause(),
            Happens::Thawed => redis.resume(),
            Happens::Away => self.place.proxy.lead_to(([127, 0, 0, 1], 1)),
            Happens::Back => self.place.proxy.lead_to(redis.address()),
            Happens::ReadOnly => drop(redis.run(&["REPLICAOF", "127.0.0.1", "1"])),
            Happens::Writable => drop(redis.run(&["REPLICAOF", "NO", "ONE"])),
            Happens::Forgetful => drop(redis.run(&["SCRIPT", "FLUSH"])),
            Happens::Refuses => {
                let mut once = Some(Action::Answer(b"-ERR something is wrong\r\n".to_vec()));
                self.place.proxy.fault(move |command| match command.name() {
                    "SET" | "EVALSHA" => once.take().unwrap_or(Action::Pass),
                    _ => Action::Pass,
                });
            }
        }
    }
}

/// `None`: it panicked, or took longer than anybody waits.
fn send(browser: &Browser<Router>, request: Request<Body>) -> JoinHandle<Answer> {
    let browser = browser.clone();
    tokio::spawn(async move { timeout(PATIENCE, browser.ask(request)).await.ok() })
}

fn request(path: &str, words: &str) -> Request<Body> {
    Request::post(path).body(Body::from(words.to_owned())).unwrap()
}

/// A Set-Cookie line without its value; attributes in the order of the alphabet.
fn attributes(line: &str) -> String {
    let mut parts = line.split("; ");
    let name = parts.next().and_then(|pair| pair.split('=').next()).unwrap_or_default();
    let mut attributes: Vec<String> = parts
        .filter(|part| !part.starts_with("Expires="))
        .map(|part| match part.strip_prefix("Max-Age=") {
            Some("0") | None => part.to_owned(),
            Some(seconds) => format!("Max-Age of {}", span(seconds.parse().unwrap_or_default())),
        })
        .collect();
    attributes.sort_unstable();
    format!("`{name}`, {}", attributes.join(", "))
}

/// A time as one says it, so that a few seconds more or less are none.
pub(super) fn span(seconds: i64) -> String {
    if seconds > 100 * 366 * 86_400 {
        return "centuries".to_owned();
    }
    const UNITS: [(i64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| seconds + unit / 10 >= 2 * unit).unwrap_or((1, "second"));
    let count = (seconds + unit / 2) / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}
