//! Random interleavings of four requests and of time, each checked against a model of sessions: whatever order of steps
//! explains all answers and what is stored is right, and if there is none, something was lost, revived or adopted.
//!
//! `INTERLEAVINGS` says how many on each store (default 1,000), `INTERLEAVINGS_SEED` which.

#![allow(clippy::print_stdout)]

mod model;
mod shaken;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{Request, Response};
use redis_session::{Clock, KeyRing, MemoryStore, RedisSessionLayer, RedisStore, Session, Store};
use redis_session_core::Stored;
use redis_session_testkit::RedisServer;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower::{Layer, ServiceExt, service_fn};

use crate::visitor::make_older;
use model::Model;
use shaken::Shaken;

const REQUESTS: usize = 4;
/// Whoever does nothing for so long is there yet, with a touch due; twice, and he is gone.
const IDLE: Duration = Duration::from_secs(20 * 60);
/// Past the idle timeout and its slack.
const EXPIRE: Duration = Duration::from_secs(32 * 60);

/// What a handler does; the values are different everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Push(u64),
    Set(&'static str, u64),
    Remove(&'static str),
    Rotate,
    Destroy,
}

impl Act {
    fn is_awaited(self) -> bool {
        matches!(self, Self::Rotate | Self::Destroy)
    }
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A request goes on: it is sent and reads its session, or makes its next awaited call, or is answered.
    Go(usize),
    Pass(Duration),
}

/// What is to happen: the steps of one group at the same time, the groups one after the other.
#[derive(Clone, Debug)]
struct Plan {
    acts: Vec<Vec<Act>>,
    groups: Vec<Vec<Step>>,
}

/// What came of a request's step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// The fields as it read them.
    Loaded(BTreeMap<String, String>),
    /// Whether an awaited call said that the session is gone.
    Told {
        gone: bool,
    },
    Answered(Cookie),
}

/// What an answer says about the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cookie {
    Nothing,
    Given(String),
    Removed,
}

/// What was observed, in the shape of the plan, and what is there in the end.
#[derive(Debug, Default)]
struct Report {
    /// Of each group, for its requests: the cookie that they were sent with, where they were sent, and what came of it.
    groups: Vec<Vec<(usize, Option<String>, Seen)>>,
    /// The cookie that the browser had at first.
    first: String,
    /// For each cookie that was ever given: the fields that it leads to. `None`: it leads nowhere.
    leads_to: BTreeMap<String, Option<BTreeMap<String, String>>>,
    records: usize,
    revived: usize,
    adopted: usize,
}

impl Plan {
    fn random(random: &mut fastrand::Rng) -> Self {
        let mut next = 0;
        let acts: Vec<_> = (0..REQUESTS).map(|_| acts(random, &mut next)).collect();
        let steps = |request: usize| 2 + acts[request].iter().filter(|act| act.is_awaited()).count();
        let mut steps: Vec<Step> = (0..REQUESTS).flat_map(|at| vec![Step::Go(at); steps(at)]).collect();
        random.shuffle(&mut steps);
        for _ in 0..random.usize(0..3) {
            let time = if random.u8(0..3) == 0 { EXPIRE } else { IDLE };
            steps.insert(random.usize(0..=steps.len()), Step::Pass(time));
        }
        let mut groups: Vec<Vec<Step>> = Vec::new();
        for step in steps {
            match groups.last_mut() {
                Some(group) if random.bool() && group.len() < 3 && may_join(group, step) => group.push(step),
                _ => groups.push(vec![step]),
            }
        }
        Self { acts, groups }
    }
}

/// Two steps of one request have an order, and time passes for all.
fn may_join(group: &[Step], step: Step) -> bool {
    !matches!(step, Step::Pass(_)) && !group.iter().any(|other| *other == step || matches!(other, Step::Pass(_)))
}

fn acts(random: &mut fastrand::Rng, next: &mut u64) -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..random.usize(0..4) {
        *next += 1;
        let field = if random.bool() { "a" } else { "b" };
        acts.push(match random.u8(0..12) {
            0..4 => Act::Push(*next),
            4..6 => Act::Set(field, *next),
            6..8 => Act::Remove(field),
            8..10 => Act::Rotate,
            _ => Act::Destroy,
        });
    }
    acts
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    log: Vec<u64>,
}

/// A store and a way to let time pass on it.
struct Ground {
    name: &'static str,
    store: Arc<dyn Store>,
    /// `None`: its clock is moved.
    redis: Option<RedisServer>,
    clock: Clock,
}

impl Ground {
    fn in_memory() -> Self {
        let clock = Clock::manual();
        let store = Arc::new(MemoryStore::new().clock(clock.clone()));
        Self { name: "in memory", store, redis: None, clock }
    }

    async fn on_redis() -> Self {
        let redis = RedisServer::start();
        let store = RedisStore::options(&redis.url()).deadline(Duration::from_secs(20)).connect().await.unwrap();
        Self { name: "on Redis", store: Arc::new(store), redis: Some(redis), clock: Clock::system() }
    }

    fn pass(&self, time: Duration) {
        match &self.redis {
            None => self.clock.advance(time),
            Some(redis) => make_older(redis, i64::try_from(time.as_millis()).unwrap()),
        }
    }
}

/// A request that waits between its steps for the next one to be allowed.
struct Running {
    permits: UnboundedSender<()>,
    seen: UnboundedReceiver<Seen>,
}

fn start(layer: RedisSessionLayer, acts: Vec<Act>, cookie: Option<&str>) -> Running {
    let (permits, allowed) = unbounded_channel();
    let (sender, seen) = unbounded_channel();
    let mut request = Request::builder().uri("https://shop.example/");
    if let Some(cookie) = cookie {
        request = request.header(COOKIE, format!("__Host-id={cookie}"));
    }
    let request = request.body(Body::empty()).unwrap();
    let (handler_sender, allowed) = (sender.clone(), Arc::new(tokio::sync::Mutex::new(allowed)));
    let service = layer.layer(service_fn(move |request: Request<Body>| {
        let (acts, sender, allowed) = (acts.clone(), handler_sender.clone(), allowed.clone());
        async move {
            let session: Session = Session::from_extensions(request.extensions()).await.unwrap();
            sender.send(Seen::Loaded(session.fields().unwrap().into_iter().collect())).unwrap();
            let mut allowed = allowed.lock().await;
            allowed.recv().await.unwrap();
            for act in acts {
                carry_out(&session, act, &sender, &mut allowed).await;
            }
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    tokio::spawn(async move {
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        sender.send(Seen::Answered(cookie_of(&response))).unwrap();
    });
    Running { permits, seen }
}

async fn carry_out(session: &Session, act: Act, seen: &UnboundedSender<Seen>, allowed: &mut UnboundedReceiver<()>) {
    let told = match act {
        Act::Push(value) => {
            session.view::<Visitor>().unwrap().update_with(value, |visitor, value| visitor.log.push(value)).unwrap();
            return;
        }
        Act::Set(field, value) => return session.insert(field, &value).unwrap(),
        Act::Remove(field) => return session.remove(field).unwrap(),
        Act::Rotate => session.rotate().await,
        Act::Destroy => session.destroy().await,
    };
    assert!(told.as_ref().err().is_none_or(|error| error.is_gone()), "{told:?}");
    seen.send(Seen::Told { gone: told.is_err() }).unwrap();
    allowed.recv().await.unwrap();
}

fn cookie_of(response: &Response<Body>) -> Cookie {
    let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
    match lines[..] {
        [] => Cookie::Nothing,
        [line] => {
            let value = line.to_str().unwrap().split([';', '=']).nth(1).unwrap();
            if value.is_empty() { Cookie::Removed } else { Cookie::Given(value.to_owned()) }
        }
        _ => panic!("several cookies: {lines:?}"),
    }
}

/// Carries a plan out on a store, through two processes.
struct Run<'a> {
    ground: &'a Ground,
    store: Shaken,
    layers: [RedisSessionLayer; 2],
    report: Report,
    /// What the browser has.
    jar: Option<String>,
    running: Vec<Option<Running>>,
    /// Keys at which a session was over.
    over: BTreeSet<String>,
}

impl<'a> Run<'a> {
    async fn new(ground: &'a Ground, seed: u64) -> Self {
        if let Some(redis) = &ground.redis {
            redis.run(&["FLUSHALL"]);
        }
        let (store, keys) = (Shaken::new(ground.store.clone(), seed), KeyRing::random().unwrap());
        let layer = || RedisSessionLayer::with_store(store.clone(), keys.clone());
        let layers = [layer(), layer()];
        let running = (0..REQUESTS).map(|_| None).collect();
        let (report, over) = (Report::default(), BTreeSet::new());
        let mut run = Self { ground, store, layers, report, jar: None, running, over };
        let mut first = start(run.layers[0].clone(), vec![Act::Set("a", 0)], None);
        first.seen.recv().await.unwrap();
        first.permits.send(()).unwrap();
        let Some(Seen::Answered(Cookie::Given(cookie))) = first.seen.recv().await else { panic!("no first cookie") };
        run.report.first.clone_from(&cookie);
        run.report.leads_to.insert(cookie.clone(), None);
        run.jar = Some(cookie);
        run
    }

    async fn carry_out(mut self, plan: &Plan) -> Report {
        for group in &plan.groups {
            self.carry_out_group(plan, group).await;
            self.look_around().await;
        }
        for (cookie, leads_to) in &mut self.report.leads_to {
            let mut reader = start(self.layers[0].clone(), Vec::new(), Some(cookie));
            let Some(Seen::Loaded(fields)) = reader.seen.recv().await else { panic!("nothing was read") };
            reader.permits.send(()).unwrap();
            reader.seen.recv().await.unwrap();
            *leads_to = Some(fields).filter(|fields| !fields.is_empty());
        }
        self.report.adopted = self.store.adopted();
        self.report
    }

    async fn carry_out_group(&mut self, plan: &Plan, group: &[Step]) {
        let mut sent = Vec::new();
        for step in group {
            match *step {
                Step::Pass(time) => self.ground.pass(time),
                Step::Go(at) => match &self.running[at] {
                    Some(running) => {
                        running.permits.send(()).unwrap();
                        sent.push((at, None));
                    }
                    None => {
                        let layer = self.layers[at % 2].clone();
                        self.running[at] = Some(start(layer, plan.acts[at].clone(), self.jar.as_deref()));
                        sent.push((at, self.jar.clone()));
                    }
                },
            }
        }
        let mut group = Vec::new();
        for (at, cookie) in sent {
            let seen = self.running[at].as_mut().unwrap().seen.recv().await.unwrap();
            group.push((at, cookie, seen));
        }
        for (_, _, seen) in &group {
            match seen {
                Seen::Answered(Cookie::Given(cookie)) => {
                    self.report.leads_to.insert(cookie.clone(), None);
                    self.jar = Some(cookie.clone());
                }
                Seen::Answered(Cookie::Removed) => self.jar = None,
                _ => {}
            }
        }
        self.report.groups.push(group);
    }

    /// What is over stays over.
    async fn look_around(&mut self) {
        self.report.records = 0;
        for key in self.store.created() {
            let lives = matches!(self.ground.store.load(&key).await.unwrap(), Some(Stored::Record(_)));
            self.report.records += usize::from(lives);
            if !lives {
                self.over.insert(key.to_text());
            } else if self.over.contains(&key.to_text()) {
                self.report.revived += 1;
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, acts) in self.acts.iter().enumerate() {
            writeln!(f, "request {at}: {acts:?}")?;
        }
        self.groups.iter().try_for_each(|group| writeln!(f, "  {group:?}"))
    }
}

fn setting<T: std::str::FromStr<Err: fmt::Debug>>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

async fn interleave(ground: impl AsyncFn() -> Ground, serves_all: bool) {
    let cases: u64 = setting("INTERLEAVINGS").unwrap_or(1000);
    let seed: u64 = setting("INTERLEAVINGS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let (mut place, mut revived, mut adopted, mut steps, mut together) = (ground().await, 0, 0, 0, 0);
    println!("INTERLEAVINGS_SEED={seed} {}", place.name);
    for case in 0..cases {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(case));
        let plan = Plan::random(&mut random);
        let report = Run::new(&place, random.u64(..)).await.carry_out(&plan).await;
        steps += plan.groups.iter().map(Vec::len).sum::<usize>();
        together += plan.groups.iter().filter(|group| group.len() > 1).count();
        revived += report.revived;
        adopted += report.adopted;
        assert!(
            Model::explains(&plan, &report, place.redis.is_none()),
            "INTERLEAVINGS_SEED={} {}: no order explains\n{plan}{report:#?}",
            seed.wrapping_add(case),
            place.name
        );
        if !serves_all {
            place = ground().await;
        }
    }
    println!(
        "{cases} interleavings {}: {steps} steps, {together} groups of them at the same time; each is explained, so 0 lost; \
         {revived} revived, {adopted} adopted ids",
        place.name
    );
    assert_eq!((revived, adopted), (0, 0));
}

#[tokio::test]
async fn random_interleavings_in_memory_fit_a_sequential_model() {
    interleave(async || Ground::in_memory(), false).await;
}

#[tokio::test]
async fn random_interleavings_on_redis_fit_a_sequential_model() {
    interleave(Ground::on_redis, true).await;
}
