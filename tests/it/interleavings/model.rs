//! Sessions as they should be: each step of a request is one atomic step on them.

use std::collections::BTreeMap;

use super::{Act, Cookie, Plan, Report, Seen, Step};

type Fields = BTreeMap<String, String>;

/// A session by number, and which of its ids.
type Id = (usize, usize);

const MINUTE: u64 = 60;
/// The idle timeout and the slack that a touch interval adds.
const IDLE: u64 = 31 * MINUTE;

#[derive(Clone)]
enum State {
    Alive(Alive),
    /// Ended at this time, a minute ago at most.
    Ended(u64),
    Nothing,
}

#[derive(Clone)]
struct Alive {
    fields: Fields,
    /// What they were before each write.
    before: Vec<Fields>,
    /// How often its id was replaced.
    rotations: usize,
    /// When its id was put there, and when it was used last.
    proved: u64,
    seen: u64,
}

/// What a request knows of its session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Absent,
    Gone,
    Ended,
    Replaced { lately: bool },
    Alive,
}

#[derive(Clone)]
struct Request {
    found: Found,
    presented: Option<Id>,
    id: Option<Id>,
    /// The fields before its edits, as it sees them.
    base: Fields,
    edits: Vec<Act>,
    seen: u64,
    /// How many of its acts are done.
    done: usize,
    cookie: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Nothing,
    Give,
    Remove,
}

/// What is stored, and how far the requests are.
#[derive(Clone)]
pub(super) struct Model<'a> {
    plan: &'a Plan,
    report: &'a Report,
    /// Whether a request under way sees time pass on what it has read: not where the stored data are made older.
    clock_moves: bool,
    now: u64,
    sessions: Vec<State>,
    requests: Vec<Option<Request>>,
    /// The ids by their cookies.
    cookies: BTreeMap<&'a str, Id>,
}

impl<'a> Model<'a> {
    /// Whether there is an order of the steps within each group that leads to what was observed.
    pub(super) fn explains(plan: &'a Plan, report: &'a Report, clock_moves: bool) -> bool {
        let fields = Fields::from([("a".to_owned(), "0".to_owned())]);
        let first = Alive { fields, before: Vec::new(), rotations: 0, proved: 0, seen: 0 };
        let model = Self {
            plan,
            report,
            clock_moves,
            now: 0,
            sessions: vec![State::Alive(first)],
            requests: vec![None; plan.acts.len()],
            cookies: BTreeMap::from([(report.first.as_str(), (0, 0))]),
        };
        model.go_on(0, &[])
    }

    /// Tries what is left of a group in every order, and then the groups after it.
    fn go_on(&self, group: usize, done: &[usize]) -> bool {
        let Some(steps) = self.plan.groups.get(group) else { return self.is_what_is_left() };
        if done.len() == steps.len() {
            return self.go_on(group + 1, &[]);
        }
        (0..steps.len()).filter(|at| !done.contains(at)).any(|at| {
            self.with_what_may_be_known(steps[at])
                .any(|mut next| next.step(group, steps[at]) && next.go_on(group, &[done, &[at]].concat()))
        })
    }

    /// Whether a removal changes anything depends on what its request knows. A rotation writes in any case, and may have
    /// learned from the writer before it in the queue what was there after any of the writes so far, or not.
    fn with_what_may_be_known(&self, step: Step) -> impl Iterator<Item = Self> {
        let mut learned = Vec::new();
        if let Step::Go(at) = step
            && let Some(request @ Request { found: Found::Alive, id: Some((session, _)), .. }) = &self.requests[at]
            && self.plan.acts[at].iter().any(|act| matches!(act, Act::Remove(_)))
            && self.plan.acts[at][request.done..].iter().find(|act| act.is_awaited()) == Some(&Act::Rotate)
            && let State::Alive(alive) = &self.sessions[*session]
        {
            learned.extend(alive.before.iter().chain([&alive.fields]).map(|base| (at, base.clone())));
        }
        let knows = |(at, base): (usize, Fields)| {
            let mut model = self.clone();
            model.requests[at].as_mut().expect("it was loaded").base = base;
            model
        };
        [self.clone()].into_iter().chain(learned.into_iter().map(knows))
    }

    fn step(&mut self, group: usize, step: Step) -> bool {
        match step {
            Step::Pass(time) => {
                self.pass(time.as_secs());
                true
            }
            Step::Go(at) => {
                let report = self.report;
                let observed = report.groups[group].iter().find(|(who, ..)| *who == at);
                let (_, cookie, seen) = observed.expect("each step has an outcome");
                match &self.requests[at] {
                    None => self.load(at, cookie.as_deref(), seen),
                    Some(_) => self.continue_with(at, seen),
                }
            }
        }
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        for state in &mut self.sessions {
            let over = match state {
                State::Alive(alive) => alive.seen + IDLE <= self.now,
                State::Ended(at) => *at + MINUTE <= self.now,
                State::Nothing => false,
            };
            if over {
                *state = State::Nothing;
            }
        }
        if !self.clock_moves {
            self.requests.iter_mut().flatten().for_each(|request| request.seen += time);
        }
    }

    fn load(&mut self, at: usize, cookie: Option<&str>, seen: &Seen) -> bool {
        let id = match cookie.map(|cookie| self.cookies.get(cookie)) {
            None => None,
            Some(Some(id)) => Some(*id),
            Some(None) => return false,
        };
        let (mut base, mut was_seen) = (Fields::new(), 0);
        let found = match id.map(|(session, rotations)| (&self.sessions[session], rotations)) {
            None => Found::Absent,
            Some((State::Nothing, _)) => Found::Gone,
            Some((State::Ended(_), _)) => Found::Ended,
            Some((State::Alive(alive), rotations)) if alive.rotations == rotations => {
                (base, was_seen) = (alive.fields.clone(), alive.seen);
                Found::Alive
            }
            Some((State::Alive(alive), _)) => Found::Replaced { lately: self.now < alive.proved + MINUTE },
        };
        let fits = *seen == Seen::Loaded(base.clone());
        let (edits, cookie) = (Vec::new(), Answer::Nothing);
        self.requests[at] = Some(Request { found, presented: id, id, base, edits, seen: was_seen, done: 0, cookie });
        fits
    }

    fn continue_with(&mut self, at: usize, seen: &Seen) -> bool {
        let mut request = self.requests[at].take().expect("it was loaded");
        let mut told = None;
        while let Some(act) = self.plan.acts[at].get(request.done) {
            request.done += 1;
            match act {
                Act::Rotate => told = Some(self.rotate(&mut request)),
                Act::Destroy => told = Some(self.destroy(&mut request)),
                edit => request.edits.push(*edit),
            }
            if told.is_some() {
                break;
            }
        }
        let fits = match told {
            Some(gone) => *seen == Seen::Told { gone },
            None => {
                self.commit(&mut request);
                self.is_answer(&request, seen)
            }
        };
        self.requests[at] = Some(request);
        fits
    }

    fn is_answer(&mut self, request: &Request, seen: &Seen) -> bool {
        let report = self.report;
        match (request.cookie, seen) {
            (Answer::Nothing, Seen::Answered(Cookie::Nothing)) | (Answer::Remove, Seen::Answered(Cookie::Removed)) => {
                true
            }
            (Answer::Give, Seen::Answered(Cookie::Given(cookie))) => {
                let Some((cookie, _)) = report.leads_to.get_key_value(cookie) else { return false };
                let id = request.id.expect("only an id is given");
                // Neither two ids with one cookie nor two cookies with one id.
                !self.cookies.values().any(|known| *known == id) && self.cookies.insert(cookie, id).is_none()
            }
            _ => false,
        }
    }

    /// The session of a request, if it is alive under the id that the request has.
    fn session_of(&mut self, request: &Request) -> Result<&mut Alive, Found> {
        let (session, rotations) = request.id.expect("it was found alive");
        match &mut self.sessions[session] {
            State::Alive(alive) if alive.rotations == rotations => Ok(alive),
            State::Alive(_) => Err(Found::Replaced { lately: true }),
            State::Ended(_) | State::Nothing => Err(Found::Ended),
        }
    }

    /// Answers whether the session is gone.
    fn rotate(&mut self, request: &mut Request) -> bool {
        match request.found {
            Found::Alive => self.write(request, true),
            Found::Ended | Found::Replaced { lately: true } => true,
            Found::Absent | Found::Gone | Found::Replaced { lately: false } => false,
        }
    }

    fn write(&mut self, request: &mut Request, rotates: bool) -> bool {
        let now = self.now;
        if edited(&request.base, &request.edits) == request.base {
            request.edits.clear();
        }
        match self.session_of(request) {
            Ok(alive) => {
                let fields = edited(&alive.fields, &request.edits);
                alive.before.push(std::mem::replace(&mut alive.fields, fields));
                alive.seen = now;
                if rotates {
                    (alive.rotations, alive.proved) = (alive.rotations + 1, now);
                    request.id = request.id.map(|(session, rotations)| (session, rotations + 1));
                    request.cookie = Answer::Give;
                }
                request.base = edited(&request.base, &request.edits);
                request.edits.clear();
                request.seen = now;
                false
            }
            Err(found) => {
                bury(request, found);
                true
            }
        }
    }

    /// Answers whether the session is gone, as far as this request may know.
    fn destroy(&mut self, request: &mut Request) -> bool {
        let removal = if request.presented.is_some() { Answer::Remove } else { Answer::Nothing };
        let cookie = match request.found {
            Found::Replaced { .. } => return true,
            Found::Alive => match self.session_of(request) {
                Err(found @ Found::Replaced { .. }) => {
                    bury(request, found);
                    return true;
                }
                alive => {
                    if alive.is_ok() {
                        let (session, _) = request.id.expect("it was found alive");
                        self.sessions[session] = State::Ended(self.now);
                    }
                    Answer::Remove
                }
            },
            Found::Absent | Found::Gone | Found::Ended => removal,
        };
        bury(request, Found::Absent);
        request.cookie = cookie;
        false
    }

    fn commit(&mut self, request: &mut Request) {
        let is_changed = edited(&request.base, &request.edits) != request.base;
        match request.found {
            Found::Alive if is_changed || self.now >= request.seen + MINUTE => {
                self.write(request, false);
            }
            Found::Absent | Found::Gone | Found::Replaced { lately: false } if is_changed => {
                let fields = edited(&Fields::new(), &request.edits);
                let alive = Alive { fields, before: Vec::new(), rotations: 0, proved: self.now, seen: self.now };
                self.sessions.push(State::Alive(alive));
                request.id = Some((self.sessions.len() - 1, 0));
                request.cookie = Answer::Give;
            }
            _ => {}
        }
    }

    /// Whether what is stored in the end, and what each cookie leads to, is as it should be.
    fn is_what_is_left(&self) -> bool {
        let alive = self.sessions.iter().filter(|state| matches!(state, State::Alive(_))).count();
        let leads_to = |cookie: &str| {
            let (session, rotations) = self.cookies.get(cookie)?;
            match &self.sessions[*session] {
                State::Alive(alive) if alive.rotations == *rotations => Some(alive.fields.clone()),
                _ => None,
            }
        };
        let fits = |(cookie, fields): (&String, &Option<Fields>)| {
            leads_to(cookie).filter(|fields| !fields.is_empty()) == *fields
        };
        alive == self.report.records && self.report.leads_to.iter().all(fits)
    }
}

/// The session is no more, and nothing that this request did is kept.
fn bury(request: &mut Request, found: Found) {
    request.found = found;
    request.edits.clear();
    request.base.clear();
    request.cookie = Answer::Nothing;
}

fn edited(fields: &Fields, edits: &[Act]) -> Fields {
    let mut fields = fields.clone();
    for edit in edits {
        match edit {
            Act::Push(value) => {
                let log = fields.get("log").map_or("[]", String::as_str).trim_end_matches(']');
                let comma = if log == "[" { "" } else { "," };
                fields.insert("log".to_owned(), format!("{log}{comma}{value}]"));
            }
            Act::Set(field, value) => {
                fields.insert((*field).to_owned(), value.to_string());
            }
            Act::Remove(field) => {
                fields.remove(*field);
            }
            Act::Rotate | Act::Destroy => {}
        }
    }
    fields
}
