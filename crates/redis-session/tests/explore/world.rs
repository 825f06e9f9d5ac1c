//! One schedule: requests through the real layer, the store behind a wire, browsers, time; and what can happen next.

mod actions;
mod checks;
mod fingerprint;
mod people;
mod stage;
mod visit;

use std::collections::hash_map::DefaultHasher;
use std::hash::Hash;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response, Uri};
use redis_session::{Expiry, Kind};
use redis_session_core::{
    Create, ENTRY_STAYS, End, Enter, Error, Fields, Level, LogIn, Random, Reason, ReplacedBy, SessionId, SessionKey,
    Step, Stored, Time, Token, User, Whose, WishChange,
};
use redis_session_testkit::CookieJar;
use tower::ServiceExt;

use crate::acts::Word;
use crate::facts::{Facts, MINUTE, Ticket, Violation, violated};
use crate::scenario::{Ground, Scenario};
use crate::wire::{Call, Op, Outcome, RUNNING, Who, Wire, empty_store};

use fingerprint::{hash_answer, hash_op};
use people::Revocations;
use stage::draw;
use visit::{Answering, Last, Progress, Visit};

pub(crate) use actions::{Action, Fate};
pub(crate) use stage::Stage;

const NAME: &str = "__Host-id";
const DEADLINE: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const STRICT: Duration = Duration::from_secs(5 * 60);

struct Held {
    who: Who,
    op: Op,
}

struct Browser {
    jar: CookieJar,
    /// Whose answer brought the cookie that the jar has. `None`: it was there from the start.
    from: Option<usize>,
    /// The requests that were on their way when it came.
    before: Vec<usize>,
    /// Whether it came late itself, where the protocol allows it.
    from_late: bool,
}

/// The state of a schedule.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    stage: &'a Stage,
    visits: Vec<Visit>,
    browsers: Vec<Browser>,
    held: Vec<Held>,
    faults: u8,
    jumps: u8,
    failovers: u8,
    crashes: u8,
    /// Which process has died. `None`: none.
    died: Option<usize>,
    /// The requests that died with it.
    graves: Vec<Answering>,
    revocations: Revocations,
    facts: Facts,
    /// Those who wait for their turn in a queue, in their order.
    waiting: Vec<usize>,
    /// What tasks were told that outlive their request.
    background: DefaultHasher,
    /// All writes that ran, where a failover may undo some.
    log: Vec<(Op, Time)>,
    url: Uri,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, stage: &'a Stage) -> Self {
        stage::reset(stage);
        let browser = || Browser { jar: CookieJar::new(), from: None, before: Vec::new(), from_late: false };
        let visit = |(at, request): (usize, &crate::scenario::Planned)| Visit::new(at, request.act, request.browser);
        let mut world = Self {
            scenario,
            stage,
            visits: scenario.requests.iter().enumerate().map(visit).collect(),
            browsers: (0..scenario.browsers()).map(|_| browser()).collect(),
            held: Vec::new(),
            faults: 0,
            jumps: 0,
            failovers: 0,
            crashes: 0,
            died: None,
            graves: Vec::new(),
            revocations: Revocations::default(),
            facts: Facts::default(),
            waiting: Vec::new(),
            background: DefaultHasher::new(),
            log: Vec::new(),
            url: Uri::from_static("https://shop.example/"),
        };
        if scenario.ground != Ground::Nothing {
            world.lay_the_ground().expect("nothing has gone wrong yet");
        }
        world
    }

    fn now(&self) -> Time {
        self.stage.wire.clock().now()
    }

    fn lay_the_ground(&mut self) -> Result<(), Violation> {
        RUNNING.set(Who::Background);
        match self.scenario.ground {
            Ground::User | Ground::UserTwice => {
                for browser in 0..self.browsers.len() {
                    let (id, _) = self.lay_a_session(Some(1))?;
                    self.hand_out(&id, browser);
                }
            }
            Ground::Away => {}
            _ => {
                let (id, key) = self.lay_a_session(None)?;
                if self.scenario.ground == Ground::JustEnded {
                    let (not_after, whose) = (self.now(), Whose::Nobodys(id.proof()));
                    let end = End { not_after, reason: Reason::Destroyed, whose };
                    self.execute(Who::Background, &Op::End(key, end))?;
                }
                (0..self.browsers.len()).for_each(|browser| self.hand_out(&id, browser));
            }
        }
        if matches!(self.scenario.ground, Ground::UserTwice | Ground::Elsewhere | Ground::Away) {
            self.lay_a_session(Some(1))?;
        }
        if self.scenario.ground == Ground::Aged || self.scenario.aged {
            self.stage.wire.advance(MINUTE + MINUTE);
        }
        self.facts.sessions.values_mut().for_each(|story| story.is_of_the_ground = true);
        Ok(())
    }

    /// A session of this user, or of nobody.
    fn lay_a_session(&mut self, user: Option<u8>) -> Result<(SessionId, SessionKey), Violation> {
        let random = Random::scripted(|bytes| draw(bytes, false));
        let id = SessionId::random(&random).expect("scripted");
        let (key, now, proof) = (id.key(&self.stage.realm), self.now(), id.proof());
        if self.scenario.ground == Ground::Unknown {
            return Ok((id, key));
        }
        let fields = Fields::from_pairs(vec![("x".into(), "1".into())]);
        let (token, life) = (Token::random(&random).expect("scripted"), Expiry::default().life());
        let login = user.map(|user| {
            let user = User::new(user).expect("a number");
            LogIn { user, level: Level::FULL, label: None, waited: Duration::ZERO }
        });
        if let Some(login) = &login {
            let life = life.deadline(now, now, &Default::default()).since(now) + ENTRY_STAYS;
            let (session, not_after) = (key.handle(), now);
            let enter = Enter { session, life, cap: None, age: Duration::ZERO, instead_of: None, not_after };
            self.execute(Who::Background, &Op::Enter(login.user.key(&self.stage.realm), enter))?;
        }
        let create = Create { token, not_after: now, proof, life, wish: WishChange::default(), login, fields };
        self.execute(Who::Background, &Op::Create(key.clone(), create))?;
        Ok((id, key))
    }

    /// A browser has the cookie of this session from before.
    fn hand_out(&mut self, id: &SessionId, browser: usize) {
        let (key, value) = (id.key(&self.stage.realm), self.stage.signer.sign(id));
        self.facts.cookies.insert(value.clone(), Ticket { key, proof: id.proof().to_text() });
        self.browsers[browser].jar.put("shop.example", NAME, &value);
    }

    fn process(&self, at: usize) -> usize {
        if self.scenario.apart { at % 2 } else { 0 }
    }

    /// Which service answers: that of the process, or of the one that takes its place.
    fn service(&self, at: usize) -> usize {
        if self.died == Some(self.process(at)) { 2 } else { self.process(at) }
    }

    fn has_a_call(&self, at: usize) -> bool {
        self.stage.wire.calls().iter().any(|call| call.who == Who::Request(at))
    }

    /// Whether a request pauses before it sends again.
    fn pauses(&self, at: usize) -> bool {
        let visit = &self.visits[at];
        let lost = visit.pauses || matches!(visit.writing.last, Last::Lost | Last::LostTouch);
        visit.is_running() && !visit.is_at_gate() && lost && !self.has_a_call(at)
    }

    fn pausing(&self) -> usize {
        (0..self.visits.len()).filter(|at| self.pauses(*at)).count()
    }

    /// Lets something happen, and everybody go on until all wait for the next thing.
    pub(crate) async fn carry_out(&mut self, action: Action) -> Result<(), Violation> {
        match action {
            Action::Start(at) => {
                self.breathe().await;
                self.start(at);
            }
            Action::GoOn(at) => self.go_on_at_gate(at),
            Action::Dawdle(at) => self.visits[at].dawdles_since = Some(self.jumps),
            Action::Call(at, fate) => self.decide(at, fate).await?,
            Action::Release(at) => {
                let Held { who, op } = self.held.remove(at);
                self.execute(who, &op)?;
            }
            Action::Deliver(at) => self.deliver(at)?,
            Action::Abandon(at) => {
                self.faults += 1;
                self.visits[at].progress = Progress::Abandoned;
            }
            Action::Jump(by) => {
                self.jumps += 1;
                self.advance(by).await;
            }
            Action::Pause => self.pause().await?,
            Action::Failover(undone) => self.fail_over(undone),
            Action::Crash(process) => self.crash(process),
        }
        self.settle().await
    }

    /// Whether somebody waits although nothing is left to happen.
    pub(crate) fn hangs(&self) -> Result<(), Violation> {
        if self.visits.iter().any(Visit::is_running) {
            return violated("hangs", "a request waits, and nothing is left to happen");
        }
        self.check_people_at_the_end()
    }

    fn go_on_at_gate(&mut self, at: usize) {
        let now = self.now();
        self.visits[at].go_on(now);
    }

    fn start(&mut self, at: usize) {
        if self.scenario.has_users() {
            self.arrives_among_people(at);
        }
        let (now, (service, sessions)) = (self.now(), self.stage.processes[self.service(at)].clone());
        let (visit, browser) = (&mut self.visits[at], &self.browsers[self.scenario.requests[at].browser]);
        let mut request = Request::builder().uri(self.url.clone());
        if let Some(cookies) = browser.jar.header(&self.url) {
            visit.presented = cookies.split_once('=').map(|(_, value)| value.to_owned());
            request = request.header(COOKIE, cookies);
        }
        visit.job.sessions = Some(sessions);
        let request = request.body(visit.job.clone()).expect("a request");
        visit.ticket = visit.presented.as_ref().and_then(|value| self.facts.cookies.get(value)).cloned();
        visit.arrived = now;
        visit.writing.since = now;
        (&visit.presented, now).hash(&mut visit.history);
        if let Some(ticket) = &visit.ticket {
            visit.had_a_session = self.facts.had_a_session(ticket, now);
            let story = self.facts.sessions.get(&ticket.key);
            visit.generation = story.and_then(|story| story.generation(&ticket.proof)).unwrap_or(0);
        }
        let answering = async move { service.oneshot(request).await.unwrap_or_else(|never| match never {}) };
        visit.progress = Progress::Running(Box::pin(answering));
        Waker::from(visit.flag.clone()).wake();
    }

    async fn decide(&mut self, at: usize, fate: Fate) -> Result<(), Violation> {
        self.faults += u8::from(fate != Fate::Reply);
        let (who, op, asked, has_run) = {
            let call = &self.stage.wire.calls()[at];
            (call.who, call.op.clone(), call.asked, call.ran.is_some())
        };
        if !has_run && matches!(fate, Fate::Reply | Fate::Run | Fate::LoseReply | Fate::TimeOut) {
            let ran = self.execute(who, &op)?;
            let call = &mut self.stage.wire.calls()[at];
            call.ran = Some(ran);
            if let Some(key) = op.key() {
                let saves = self.facts.sessions.get(key).map_or(0, |story| story.saves);
                call.saves = saves.saturating_sub(saves_since(look(&self.stage.wire, key).as_ref(), &op));
            }
        }
        match fate {
            Fate::Run => return Ok(()),
            Fate::Hold => self.held.push(Held { who, op }),
            Fate::HoldLong => {
                self.held.push(Held { who, op });
                self.pass_until(asked + DEADLINE).await?;
            }
            Fate::TimeOut => self.pass_until(asked + DEADLINE).await?,
            Fate::Reply | Fate::LoseReply | Fate::Refuse => {}
        }
        let mut call = self.stage.wire.calls().remove(at);
        let answer = match (fate, call.ran.take()) {
            (Fate::Reply, ran) => Ok(ran.expect("it ran above")),
            (Fate::Refuse, _) => Err(Error::new(Kind::Unavailable, "it was not sent")),
            _ => Err(Error::new(Kind::OutcomeUnknown, "the reply was lost")),
        };
        let now = self.now();
        assert!(now <= asked + DEADLINE, "a store answers by its deadline");
        match call.who {
            Who::Request(at) => {
                let visit = &mut self.visits[at];
                visit.is_told(&call.op, &answer, call.saves, now);
                // Who is given an id without a write of his own, by a second click or an offer, may know it.
                let story =
                    visit.ticket.as_ref().and_then(|ticket| Some((self.facts.sessions.get(&ticket.key)?, ticket)));
                let known = story.and_then(|(story, ticket)| story.generation(&ticket.proof)).unwrap_or(0);
                if call.op.key() == visit.ticket.as_ref().map(|ticket| &ticket.key) {
                    visit.generation = visit.generation.max(known);
                }
            }
            Who::Background => {
                hash_op(&call.op, &mut self.background);
                hash_answer(&answer, &mut self.background);
                now.hash(&mut self.background);
            }
        }
        call.answer(answer);
        Ok(())
    }

    /// Runs an operation on the real store, and looks at what it did.
    fn execute(&mut self, who: Who, op: &Op) -> Result<Outcome, Violation> {
        if self.scenario.budget.failovers > 0 && !op.only_reads() {
            self.log.push((op.clone(), self.now()));
        }
        let Some(key) = op.key() else {
            return self.execute_on_list(who, op, op.user().expect("what is about no session is about a list"));
        };
        let (store, now) = (self.stage.wire.store(), self.now());
        let before = look(&self.stage.wire, key);
        let outcome = op.run(&store);
        if op.only_reads() {
            if matches!(op, Op::Load(_)) {
                self.was_read(who, before.as_ref());
            }
            return Ok(outcome);
        }
        let after = look(&self.stage.wire, key);
        if before == after {
            return Ok(outcome);
        }
        Self::check_refusal(op, &outcome)?;
        self.check_change(who, op, before.as_ref(), after.as_ref())?;
        let browser = if let Who::Request(at) = who { self.visits[at].browser } else { 0 };
        let rotated = matches!(op, Op::Save(_, save) if matches!(save.step, Step::Rotate(_) | Step::LogIn(..)));
        let gives = matches!(op, Op::Save(_, save) if save.step.new_proof().is_some());
        if matches!(op, Op::End(..)) {
            self.disturb(who);
        }
        self.facts.changed(key, after.as_ref(), rotated, now, browser);
        if let (Op::Save(_, save), Some(story)) = (op, self.facts.sessions.get_mut(key)) {
            story.saves += usize::from(save.token.is_some());
            if let (Who::Request(at), true) = (who, gives) {
                self.visits[at].generation = story.proofs.len() - 1;
            }
        }
        Ok(outcome)
    }

    fn was_read(&mut self, who: Who, stored: Option<&Stored>) {
        let Who::Request(at) = who else { return };
        let found_expired = matches!(stored, Some(Stored::Record(record)) if self.has_expired_for(at, record));
        let visit = &mut self.visits[at];
        visit.found_expired |= found_expired;
        if let Some(Stored::Record(record)) = stored {
            let renewed = record.previous.filter(|previous| previous.by != ReplacedBy::Login);
            let is_good =
                |proof: &str| record.proof.to_text() == proof || renewed.is_some_and(|p| p.proof.to_text() == proof);
            visit.was_replaced |= visit.ticket.as_ref().is_some_and(|ticket| !is_good(&ticket.proof));
        }
    }

    /// Lets time pass, and everybody go on whose pause ends meanwhile.
    async fn pass_until(&mut self, end: Time) -> Result<(), Violation> {
        while self.now() < end && self.somebody_pauses() {
            self.advance(FIRST_PAUSE.min(end.since(self.now()))).await;
            self.settle().await?;
        }
        self.advance(end.since(self.now())).await;
        Ok(())
    }

    /// A moment passes before the next request, so that what came before it can be told from what came after.
    async fn breathe(&mut self) {
        let moment = Duration::from_millis(3);
        if self.scenario.has_users() && self.time_left().is_none_or(|left| left > moment) {
            self.advance(moment).await;
        }
    }

    async fn advance(&mut self, by: Duration) {
        self.stage.wire.advance(by);
        self.browsers.iter_mut().for_each(|browser| browser.jar.advance(by));
        tokio::time::advance(by).await;
        self.look_around();
    }

    /// Takes note of sessions that have become others without a write: they expired, or a failover took writes back.
    fn look_around(&mut self) {
        let now = self.now();
        let keys: Vec<_> = self.facts.sessions.keys().cloned().collect();
        for key in keys {
            let stored = look(&self.stage.wire, &key);
            self.facts.changed(&key, stored.as_ref(), false, now, 0);
        }
    }

    async fn pause(&mut self) -> Result<(), Violation> {
        let (calls, waiting) = (self.stage.wire.calls().len(), self.waiting.len());
        for _ in 0..64 {
            if self.time_left().is_some_and(|left| left < FIRST_PAUSE) {
                return Ok(());
            }
            self.advance(FIRST_PAUSE).await;
            self.settle().await?;
            if self.stage.wire.calls().len() > calls || self.waiting.len() < waiting {
                return Ok(());
            }
        }
        violated("hangs", "a request pauses for more than its deadline")
    }

    fn fail_over(&mut self, undone: usize) {
        self.failovers += 1;
        self.facts.failed_over = true;
        let now = self.now();
        self.log.truncate(self.log.len() - undone);
        let (store, clock) = empty_store();
        for (op, at) in &self.log {
            clock.advance(at.since(clock.now()));
            op.run(&store);
        }
        clock.advance(now.since(clock.now()));
        self.stage.wire.replace(store, clock);
        self.look_around();
    }

    /// Lets everybody go on until all wait for something that is to happen.
    async fn settle(&mut self) -> Result<(), Violation> {
        let (may_leap, now) = (self.may_leap(), self.now());
        loop {
            let mut moved = false;
            for at in 0..self.visits.len() {
                moved |= self.go_on(at)?;
            }
            for visit in self.visits.iter_mut().filter(|visit| visit.is_at_gate() && !visit.dawdles()) {
                if !may_leap {
                    visit.go_on(now);
                    moved = true;
                }
            }
            // Tasks that outlive their request run when this one yields.
            if tasks_are_alive() {
                let calls = self.stage.wire.calls().len();
                for _ in 0..2 {
                    tokio::task::yield_now().await;
                }
                moved |= self.stage.wire.calls().len() != calls || self.visits.iter().any(|visit| visit.flag.is_set());
            }
            if !moved {
                break;
            }
        }
        for at in 0..self.visits.len() {
            let (calls, visit) = (self.stage.wire.calls(), &mut self.visits[at]);
            let asked = |call: &Call| call.who == Who::Request(at) && Some(call.asked) > visit.lost_at;
            visit.pauses &= visit.is_running() && !calls.iter().any(asked);
        }
        let waits = |at: &usize| {
            let visit = &self.visits[*at];
            visit.is_running() && !visit.is_at_gate() && !self.pauses(*at) && !self.has_a_call(*at)
        };
        let waiting: Vec<usize> = (0..self.visits.len()).filter(waits).collect();
        self.waiting.retain(|at| waiting.contains(at));
        let new: Vec<usize> = waiting.into_iter().filter(|at| !self.waiting.contains(at)).collect();
        self.waiting.extend(new);
        Ok(())
    }

    /// Polls one request, if it can go on.
    fn go_on(&mut self, at: usize) -> Result<bool, Violation> {
        let visit = &mut self.visits[at];
        let Progress::Running(answering) = &mut visit.progress else { return Ok(false) };
        if !visit.flag.take() {
            return Ok(false);
        }
        let waker = Waker::from(visit.flag.clone());
        RUNNING.set(Who::Request(at));
        let poll = answering.as_mut().poll(&mut Context::from_waker(&waker));
        if poll.is_ready() {
            visit.progress = Progress::Over;
        }
        RUNNING.set(Who::Background);
        self.check_notes(at)?;
        if let Poll::Ready(response) = poll {
            self.answered(at, &response)?;
        }
        Ok(true)
    }

    fn answered(&mut self, at: usize, response: &Response<String>) -> Result<(), Violation> {
        let (now, expired) = (self.now(), self.visits[at].found_expired || self.is_past_its_deadline(at));
        let visit = &mut self.visits[at];
        let dead = visit.ticket.as_ref().and_then(|ticket| self.facts.dead_since(ticket));
        let error = response.extensions().get::<redis_session::Error>();
        visit.answered = now;
        visit.said = error.map(|error| Word::from(error.kind()));
        visit.failed = response.status().is_server_error();
        visit.excused = dead.is_some_and(|since| since + MINUTE > visit.arrived || visit.found_nothing_late) || expired;
        (visit.said, visit.failed, visit.excused, now).hash(&mut visit.history);
        if let Some(word) = visit.said {
            let only_touches = visit.act.only_touches();
            self.check_word(at, word, only_touches)?;
        }
        let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
        let line = match lines[..] {
            [] => None,
            [line] => Some(line.to_str().expect("ASCII").to_owned()),
            _ => return violated("I4", format!("{at} was given several cookies")),
        };
        self.check_cookie(at, line.as_deref())?;
        if let Some(line) = line {
            self.visits[at].progress = Progress::Answered(line);
        }
        Ok(())
    }

    fn deliver(&mut self, at: usize) -> Result<(), Violation> {
        let Progress::Answered(line) = std::mem::replace(&mut self.visits[at].progress, Progress::Over) else {
            unreachable!("only answers are delivered")
        };
        let browser = &mut self.browsers[self.visits[at].browser];
        let cookie = |jar: &CookieJar| jar.get(NAME).map(|cookie| cookie.value.clone());
        let before = cookie(&browser.jar);
        browser.jar.receive(&self.url, &line);
        if cookie(&browser.jar) == before {
            return Ok(());
        }
        let is_late = self.check_delivery(at, before.as_deref())?;
        let browser = &mut self.browsers[self.visits[at].browser];
        (browser.from, browser.from_late) = (Some(at), is_late);
        browser.before = (0..self.visits.len()).filter(|other| self.visits[*other].is_open()).collect();
        Ok(())
    }
}

/// Whether there are tasks that outlive their request.
fn tasks_are_alive() -> bool {
    tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0
}

/// How many saves came after this one, if it is there: who is told that it ran before learns nothing of them.
fn saves_since(stored: Option<&Stored>, op: &Op) -> usize {
    let (Some(Stored::Record(record)), Op::Save(_, save)) = (stored, op) else { return 0 };
    let mut own = save.token.iter().chain(&save.earlier);
    let Some(own) = own.find(|token| record.tokens.contains(**token)) else { return 0 };
    let older = |token: &Token| record.tokens.before(*token);
    std::iter::successors(Some(record.tokens.newest()), older).take_while(|token| token != own).count()
}

/// What is at a key.
fn look(wire: &Wire, key: &SessionKey) -> Option<Stored> {
    match Op::Load(key.clone()).run(&wire.store()) {
        Outcome::Loaded(stored) => stored,
        other => unreachable!("{other:?} to a load"),
    }
}
