//! Watches what each request asks of the session store: a store around the store, an observer, and a middleware.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use redis_session::{Event, Observer};
use redis_session_core::{
    BoxFuture, Change, Changes, Create, Created, Doom, Doomed, End, EndListener, Ended, Enter, Entered, Error, Index,
    Kind, Page, PageMark, Prolong, Prolonged, Record, Save, Saved, SessionHandle, SessionKey, Standing, Store, Stored,
    Time, Token, UserKey,
};
use serde::{Deserialize, Serialize};

/// What one request did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// Method and path.
    pub(crate) request: String,
    /// Which instance of the shop served it.
    pub(crate) instance: String,
    pub(crate) loaded: bool,
    /// What became of the session, in the words of the library's events.
    pub(crate) events: Vec<String>,
    /// How many operations the store was asked for: on Redis, one command each.
    pub(crate) commands: u32,
    /// Names and values of the fields that went to the store or came from there.
    pub(crate) bytes: usize,
    /// How long the store took for them.
    pub(crate) micros: u64,
    /// The newest version of the session that was seen.
    pub(crate) version: Option<String>,
}

/// An instance of the shop, as the drawer shows it.
#[derive(Default)]
pub(crate) struct Instance {
    pub(crate) name: String,
    /// Where it keeps sessions.
    pub(crate) place: String,
}

/// The trace of a request, which grows until its response has left.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    pub(crate) instance: Arc<Instance>,
    now: Arc<Mutex<Trace>>,
    /// What the form did that led to this page. `None`: no form did.
    before: Option<Arc<Trace>>,
}

tokio::task_local! {
    static WATCH: Watch;
}

impl Watch {
    /// Of the request that is being served.
    pub(crate) fn current() -> Self {
        WATCH.try_with(Self::clone).unwrap_or_default()
    }

    pub(crate) fn now(&self) -> Trace {
        self.lock().clone()
    }

    pub(crate) fn before(&self) -> Option<&Trace> {
        self.before.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, Trace> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(change: impl FnOnce(&mut Trace)) {
    // Outside a request there is nobody to tell: the store also works in the background.
    let _ = WATCH.try_with(|watch| change(&mut watch.lock()));
}

/// The middleware, outside the session layer, so that it sees the commit. What a form did is told to the next page,
/// whichever instance serves it.
pub(crate) async fn watch(State(instance): State<Arc<Instance>>, request: Request, next: Next) -> Response {
    let is_form = request.method() == Method::POST;
    let trace = Trace {
        request: format!("{} {}", request.method(), request.uri().path()),
        instance: instance.name.clone(),
        ..Trace::default()
    };
    let before = from_cookie(request.headers()).map(Arc::new);
    let watch = Watch { instance, now: Arc::new(Mutex::new(trace)), before };
    let mut response = WATCH.scope(watch.clone(), next.run(request)).await;
    if let Some(cookie) = is_form.then(|| to_cookie(&watch.now())).flatten() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

const COOKIE: &str = "last-form";

fn to_cookie(trace: &Trace) -> Option<HeaderValue> {
    let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(trace).ok()?);
    format!("{COOKIE}={text}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax").parse().ok()
}

/// Only ever shown to the browser that sent it, so nobody need sign it.
fn from_cookie(headers: &HeaderMap) -> Option<Trace> {
    let mut cookies = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let text = cookies.find_map(|line| {
        line.split(';').filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE)
    });
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text?.1).ok()?).ok()
}

/// Notes what happens to sessions.
pub(crate) struct Events;

impl Observer for Events {
    fn observe(&self, event: Event) {
        let words = match event {
            Event::Saved { tries: 1 } => "saved".to_owned(),
            Event::Saved { tries } => format!("saved in {tries} tries, since another request saved meanwhile"),
            _ if event.reason().is_empty() => event.name().to_owned(),
            _ => format!("{}: {}", event.name(), event.reason()),
        };
        note(|trace| trace.events.push(words));
    }
}

/// Any store and its index, with what goes through them noted.
pub(crate) struct Watched(pub(crate) Box<dyn Store>);

impl Store for Watched {
    fn now(&self) -> Option<Time> {
        self.0.now()
    }

    fn deadline(&self) -> Duration {
        self.0.deadline()
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(async move {
            let answer = measured(0, self.0.load(key)).await;
            note(|trace| trace.loaded = true);
            if let Ok(Some(Stored::Record(record))) = &answer {
                note_record(record);
            }
            answer
        })
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        Box::pin(async move {
            let answer = measured(create.fields.size(), self.0.create(key, create)).await;
            if let Ok(Created::Created { .. }) = answer {
                note_version(create.token);
            }
            answer
        })
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(async move {
            let answer = measured(size(&save.changes), self.0.save(key, save)).await;
            match (&answer, save.token) {
                (Ok(Saved::Saved { .. }), Some(token)) => note_version(token),
                (Ok(Saved::Moved(record)), _) => note_record(record),
                _ => {}
            }
            answer
        })
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        Box::pin(measured(0, self.0.end(key, end)))
    }

    fn glance<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(measured(0, self.0.glance(key)))
    }

    fn index(&self) -> Option<&dyn Index> {
        self.0.index().map(|_| self as &dyn Index)
    }

    fn on_end(&self, listener: EndListener) {
        self.0.on_end(listener);
    }

    fn page<'a>(&'a self, realm: &'a Arc<str>, from: Option<PageMark>) -> BoxFuture<'a, Result<Page, Error>> {
        Box::pin(measured(0, self.0.page(realm, from)))
    }
}

impl Watched {
    /// The store's own.
    fn inner(&self) -> Result<&dyn Index, Error> {
        self.0.index().ok_or_else(|| Error::new(Kind::Config, "this store has no index"))
    }
}

impl Index for Watched {
    fn enter<'a>(&'a self, user: &'a UserKey, enter: &'a Enter) -> BoxFuture<'a, Result<Entered, Error>> {
        Box::pin(async move { measured(0, self.inner()?.enter(user, enter)).await })
    }

    fn prolong<'a>(&'a self, user: &'a UserKey, prolong: &'a Prolong) -> BoxFuture<'a, Result<Prolonged, Error>> {
        Box::pin(async move { measured(0, self.inner()?.prolong(user, prolong)).await })
    }

    fn doom<'a>(&'a self, user: &'a UserKey, doom: &'a Doom) -> BoxFuture<'a, Result<Doomed, Error>> {
        Box::pin(async move { measured(0, self.inner()?.doom(user, doom)).await })
    }

    fn leave<'a>(&'a self, user: &'a UserKey, sessions: &'a [SessionHandle]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { measured(0, self.inner()?.leave(user, sessions)).await })
    }

    fn standing<'a>(
        &'a self,
        user: &'a UserKey,
        session: SessionHandle,
    ) -> BoxFuture<'a, Result<Option<Standing>, Error>> {
        Box::pin(async move { measured(0, self.inner()?.standing(user, session)).await })
    }

    fn sessions<'a>(&'a self, user: &'a UserKey) -> BoxFuture<'a, Result<Vec<SessionHandle>, Error>> {
        Box::pin(async move { measured(0, self.inner()?.sessions(user)).await })
    }
}

async fn measured<T>(bytes: usize, operation: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let answer = operation.await;
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    note(|trace| {
        trace.commands += 1;
        trace.bytes += bytes;
        trace.micros += micros;
    });
    answer
}

fn note_record(record: &Record) {
    note(|trace| trace.bytes += record.fields.size());
    note_version(record.tokens.newest());
}

fn note_version(version: Token) {
    let text = String::from_utf8_lossy(version.as_text()).into_owned();
    note(|trace| trace.version = Some(text));
}

fn size(changes: &Changes) -> usize {
    let value = |change: &Change| match change {
        Change::Set(value) => value.len(),
        Change::Increment(by) => by.to_string().len(),
        Change::Remove => 0,
    };
    changes.fields.iter().map(|(name, change)| name.len() + value(change)).sum()
}
