//! The layer that applications add, and its settings.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use redis_session_core::{Durability, Expiry, Index, KeyRing, Kind, Random, ReadFrom, Signer, Store, User};
use redis_session_store::{RedisStore, fred};
use tokio_util::task::TaskTracker;
use tower_layer::Layer;

use crate::adopt::Predecessor;
use crate::cookie::Cookie;
use crate::ended::Watchers;
use crate::ending::{ENDS_ARE_TRIED_FOR, LONGEST_PAUSE};
use crate::error::Error;
use crate::events::{Event, Observer, log, log_failure, log_missed};
use crate::queue::Queue;
use crate::return_to::ReturnTo;
use crate::service::RedisSession;
use crate::tenants::Tenants;

/// The marker of an application's first, and mostly only, layer. Needs no mention.
#[derive(Clone, Copy, Debug)]
pub enum Main {}

/// Gives every handler under it a [`Session`](crate::Session).
///
/// A request that asks for no session pays for one small handle, and one that asks pays for one read. What handlers
/// change is written in one atomic step when the response leaves.
///
/// ```
/// use axum::{Router, routing::get};
/// use redis_session::{KeyRing, MemoryStore, RedisSessionLayer, Session};
///
/// async fn count(session: Session) -> Result<String, redis_session::Error> {
///     session.increment("visits", 1)?;
///     Ok(format!("visit {}", session.get::<u64>("visits")?.unwrap_or(0)))
/// }
///
/// # fn main() -> Result<(), redis_session::Error> {
/// // In production: RedisSessionLayer::connect("redis://127.0.0.1", KeyRing::from_env("SESSION_KEY")?).await?
/// let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
/// let app: Router = Router::new().route("/", get(count)).layer(layer);
/// # Ok(())
/// # }
/// ```
///
/// # Two layers
///
/// A second layer needs a marker type, a realm and a cookie name of its own; one handler can use both:
///
/// ```
/// use redis_session::{Cookie, KeyRing, Main, MemoryStore, RedisSessionLayer, Session};
/// # use axum::{Router, routing::get};
/// enum Office {}
///
/// async fn both(shop: Session, office: Session<redis_session::Untyped, Office>) { /* … */ }
///
/// # fn main() -> Result<(), redis_session::Error> {
/// let keys = KeyRing::random()?;
/// let shop: RedisSessionLayer = RedisSessionLayer::with_store(MemoryStore::new(), keys.clone());
/// let office = RedisSessionLayer::with_store(MemoryStore::new(), keys)
///     .marker::<Office>()
///     .realm("office")
///     .cookie(Cookie::named("__Host-office"));
/// let app: Router = Router::new().route("/", get(both)).layer(shop).layer(office);
/// # Ok(())
/// # }
/// ```
///
/// The same layer around itself, or around another with the same marker, is one layer: the outermost counts.
pub struct RedisSessionLayer<L = Main> {
    pub(crate) settings: Arc<Settings>,
    marker: PhantomData<fn() -> L>,
}

/// All that requests need of the layer.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) store: Arc<dyn Store>,
    keys: KeyRing,
    pub(crate) signer: Signer,
    /// Signs the cookie of sessions that were taken over.
    pub(crate) moved_signer: Signer,
    pub(crate) cookie: Cookie,
    pub(crate) realm: Arc<str>,
    pub(crate) expiry: Expiry,
    pub(crate) size_limit: usize,
    pub(crate) durability: Durability,
    pub(crate) read_from: ReadFrom,
    /// The most sessions that a user may have. `None`: any number.
    pub(crate) cap: Option<usize>,
    pub(crate) renew: Renew,
    pub(crate) if_reused: IfReused,
    pub(crate) if_unavailable: IfUnavailable,
    /// Where who is not logged in is sent. `None`: nowhere.
    pub(crate) log_in_page: Option<String>,
    /// Where who has to prove once more who he is is sent. `None`: nowhere.
    pub(crate) step_up_page: Option<String>,
    /// Whose sessions are taken over. `None`: nobody's.
    pub(crate) predecessor: Option<Arc<dyn Predecessor>>,
    pub(crate) save_on: SaveOn,
    pub(crate) if_not_saved: IfNotSaved,
    pub(crate) random: Random,
    pub(crate) queue: Arc<Queue>,
    pub(crate) watchers: Arc<Watchers>,
    /// What requests have begun and nobody may cut short.
    pub(crate) under_way: TaskTracker,
    /// Whose requests are. `None`: the layer's own; it has no tenants, or these are the settings of one.
    pub(crate) tenants: Option<Tenants>,
    /// Whose sessions these are. `None`: the layer's own.
    pub(crate) tenant: Option<Arc<str>>,
    observers: Vec<Arc<dyn Observer>>,
}

/// Which requests renew a session's idle timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renew {
    /// Those that ask for their session. All others cost no command at all.
    #[default]
    WhenAsked,
    /// All that come with a session's cookie: one read a request, and one write when a touch is due.
    OnEveryRequest,
}

/// What happens when somebody comes with a cookie that a timed renewal ([`Expiry::new_id_every`]) had replaced long before.
/// In any case he is nobody, and an observer is told whose cookie it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfReused {
    /// Nothing more: it may be a browser that was restored from a backup.
    #[default]
    Tell,
    /// The session ends, for its owner too: who stole the cookie may have been the one who got the new id.
    EndSession,
}

/// What a request gets whose session cannot be read: Redis is down, frozen, loading, or failing over, or what it has at the
/// session's key is no record of this library (`is_corrupt`). The visitor's cookie is kept in any case, so that the next
/// request has its session again, and no guard ([`LoggedIn`](crate::LoggedIn), [`Fresh`](crate::Fresh),
/// [`RequireLogin`](crate::RequireLogin)) lets anybody through.
///
/// A route that has another policy than its layer says so in its requests' extensions:
///
/// ```
/// use axum::{Extension, Router, routing::{get, post}};
/// use redis_session::{Error, IfUnavailable, KeyRing, MemoryStore, RedisSessionLayer, Session, Status};
///
/// async fn home(session: Session) -> &'static str {
///     if session.status() == Status::Unavailable { "Welcome. Your cart is back in a moment." } else { "Welcome." }
/// }
///
/// async fn log_out(session: Session) -> Result<&'static str, Error> {
///     session.log_out().await?; // removes the cookie, and is tried again until Redis is back
///     Ok("Goodbye.")
/// }
///
/// # fn main() -> Result<(), Error> {
/// let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
/// let app: Router = Router::new()
///     .route("/", get(home))
///     .route("/logout", post(log_out))
///     .route_layer(Extension(IfUnavailable::Anonymous)) // for the routes above it
///     .route("/cart", get(async |_: Session| "…"))
///     .layer(sessions);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfUnavailable {
    /// The error, with status 503 and `Retry-After`, or 500 where the record is damaged: its handler is not run.
    #[default]
    Refuse,
    /// An empty session of [`Status::Unavailable`](crate::Status::Unavailable). Whatever would change it is an error
    /// (`is_unavailable`, or `is_corrupt`), but for a logout, which also takes the cookie away and ends the session once it
    /// can be read.
    /// No cache may keep the response.
    Anonymous,
}

/// Which responses keep the edits of their request. What was awaited (`save`, `transaction`, `rotate`, `destroy`)
/// stands in any case, and its cookie is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaveOn {
    /// All but those of status 5xx: a 4xx is an answer that the handler means.
    #[default]
    NoServerError,
    /// Those of status 1xx, 2xx and 3xx.
    Success,
    /// All.
    Always,
}

/// What the client gets if the edits could not be saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfNotSaved {
    /// The error, with an empty body, in the response's place: nobody is told that something was done which was not.
    #[default]
    ReplaceResponse,
    /// The response as it is. The edits are lost, and only the log and the observer know.
    KeepResponse,
}

impl RedisSessionLayer {
    /// Keeps sessions in the Redis at `redis://[[user]:password@]host[:port][/database]`; by TLS at `rediss://…` (feature
    /// `tls`), or at the unix socket `redis+unix:///path`; in a cluster at `redis-cluster://host[:port][,host[:port]…]`, and behind
    /// Sentinels at `redis-sentinel://host[:port][,host[:port]…]/name`. [`RedisStore`] says more of them.
    ///
    /// # Errors
    /// `is_config`: the URL or the password is wrong; the text says what to write. `is_unavailable`: Redis cannot be
    /// reached within a second. To start without it, or with other settings, give a [`RedisStore`] to
    /// [`with_store`](Self::with_store).
    pub async fn connect(url: &str, keys: KeyRing) -> Result<Self, Error> {
        Ok(Self::with_store(RedisStore::connect(url).await?, keys))
    }

    /// Keeps sessions where a `fred` pool of the application's leads: its servers (one, a cluster or Sentinels), user, password, database and TLS. The
    /// pool itself is left alone: sessions need other settings, and get a connection of their own.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn new(pool: &fred::clients::Pool, keys: KeyRing) -> Result<Self, Error> {
        Ok(Self::with_store(RedisStore::from_pool(pool).await?, keys))
    }

    /// Keeps sessions in a [`MemoryStore`](crate::MemoryStore), in a [`RedisStore`] with settings of its own, or in any
    /// other [`Store`].
    pub fn with_store(store: impl Store, keys: KeyRing) -> Self {
        let (cookie, realm) = (Cookie::default(), "main");
        let settings = Settings {
            store: Arc::new(store),
            signer: keys.signer(realm, cookie.name()),
            moved_signer: keys.signer(realm, cookie.moved().name()),
            keys,
            cookie,
            realm: realm.into(),
            expiry: Expiry::default(),
            size_limit: 64 * 1024,
            durability: Durability::Fast,
            read_from: ReadFrom::Primary,
            cap: None,
            if_reused: IfReused::default(),
            if_unavailable: IfUnavailable::default(),
            log_in_page: None,
            step_up_page: None,
            renew: Renew::default(),
            predecessor: None,
            save_on: SaveOn::default(),
            if_not_saved: IfNotSaved::default(),
            random: Random::system(),
            queue: Arc::default(),
            watchers: Arc::default(),
            under_way: TaskTracker::new(),
            tenants: None,
            tenant: None,
            observers: Vec::new(),
        };
        Self { settings: Arc::new(settings), marker: PhantomData }
    }
}

impl<L> RedisSessionLayer<L> {
    /// The cookie. Default: [`Cookie::default`].
    pub fn cookie(self, cookie: Cookie) -> Self {
        self.with(|settings| settings.cookie = cookie)
    }

    /// How long sessions live. Default: 30 minutes idle, 12 hours in all.
    pub fn expiry(self, expiry: Expiry) -> Self {
        self.with(|settings| settings.expiry = expiry)
    }

    /// A name that tells this layer's sessions from those of other layers on the same store: part of every key in Redis
    /// and of every signature. Default: `main`. Small letters, digits, `-` and `_`, 32 at most.
    pub fn realm(self, realm: impl AsRef<str>) -> Self {
        self.with(|settings| settings.realm = realm.as_ref().into())
    }

    /// The most bytes that the names and JSON texts of one session's fields may take. Default: 64 KiB, since every read
    /// loads them all. An edit beyond it is an error to the handler, and nothing is changed.
    pub fn size_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.size_limit = bytes)
    }

    /// What the writes of this layer's sessions wait for. Default: [`Durability::Fast`], the answer of the server that made
    /// them. A request may ask for more, or for less, with [`Session::durability`](crate::Session::durability).
    ///
    /// ```
    /// use redis_session::{Durability, KeyRing, MemoryStore, RedisSessionLayer};
    /// use std::time::Duration;
    ///
    /// let layer: RedisSessionLayer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?)
    ///     .durability(Durability::Replicated { replicas: 2, within: Duration::from_millis(500) })
    ///     .check()?;
    /// # Ok::<(), redis_session::Error>(())
    /// ```
    ///
    /// A write that is not on so many replicas in time stands, and is an error with `is_not_replicated` to whoever waits for
    /// it: to the handler, or to the client, as a 503 with the error in its extensions, where the response itself brings
    /// the write. A login and a revocation wait for the list of the user's sessions too, where that is on another server. A mere
    /// renewal of the idle timeout waits for nothing, nor does what it or a logout changes in that list, which mends by
    /// itself. A [`MemoryStore`](crate::MemoryStore) has no replicas, and answers as if there were enough.
    pub fn durability(self, durability: Durability) -> Self {
        self.with(|settings| settings.durability = durability)
    }

    /// Who answers the reads of this layer's sessions. Default: [`ReadFrom::Primary`], the server that makes the writes.
    ///
    /// With [`ReadFrom::Replicas`] the replicas of a cluster, or behind Sentinels, share the reads of requests with the
    /// method GET or HEAD. What such a request is shown of its session may be as old as `behind` says: fields, status and who is
    /// logged in. So an application that decides by [`user`](crate::Session::user) itself, rather than by a guard, lets the route
    /// read from the primary:
    ///
    /// ```
    /// use axum::{Extension, Router, routing::get};
    /// use redis_session::{KeyRing, LoggedIn, ReadFrom, RedisSessionLayer, RedisStore, Session};
    /// use std::time::Duration;
    ///
    /// # async fn start() -> Result<(), redis_session::Error> {
    /// let store = RedisStore::connect("redis-sentinel://10.0.0.1,10.0.0.2,10.0.0.3/sessions").await?;
    /// let sessions = RedisSessionLayer::with_store(store, KeyRing::from_env("SESSION_KEY")?)
    ///     .read_from(ReadFrom::Replicas { behind: Duration::from_secs(2) })
    ///     .check()?;
    /// let app: Router = Router::new()
    ///     .route("/export", get(async |session: Session| session.user::<u64>().map(|user| format!("{user:?}"))))
    ///     .route_layer(Extension(ReadFrom::Primary)) // for the routes above it
    ///     .route("/plants", get(async |session: Session| format!("{:?}", session.get::<u64>("cart"))))
    ///     .route("/account", get(async |user: LoggedIn<u64>| format!("{}", *user)))
    ///     .layer(sessions);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// - A visitor sees his own edits: a response that saved some also sets a cookie (the name of the session's with `-wrote`
    ///   behind it) that outlasts `behind`, and requests that bring it are read from the primary.
    /// - Guards ([`LoggedIn`](crate::LoggedIn), [`Fresh`](crate::Fresh), [`RequireLogin`](crate::RequireLogin)) and all that writes go by
    ///   the primary's word; where a replica was asked before, the primary is asked too.
    /// - A replica that has nothing, or nothing alive, that does not answer or is too far behind, is no reason for anything: the
    ///   primary is asked, within the same deadline.
    ///
    /// A layer that [takes sessions over](Self::adopt) reads from the primary all the same, and so does a
    /// [`Tenant`](crate::Tenant) with a store of its own that knows no replicas.
    pub fn read_from(self, read_from: ReadFrom) -> Self {
        self.with(|settings| settings.read_from = read_from)
    }

    /// The most sessions that a user may have at a time. Default: any number. With one more login the session goes that
    /// would expire first, which is mostly the one that was idle for longest; its visitor's next request is told so by
    /// [`status`](crate::Session::status).
    ///
    /// Logins in parallel do not get around it. The newest always wins.
    pub fn sessions_per_user(self, most: NonZeroUsize) -> Self {
        self.with(|settings| settings.cap = Some(most.get()))
    }

    /// Which requests renew the idle timeout. Default: those that ask for their session.
    pub fn renew(self, renew: Renew) -> Self {
        self.with(|settings| settings.renew = renew)
    }

    /// The page to which [`LoggedIn`](crate::LoggedIn) and [`RequireLogin`](crate::RequireLogin) send who is not logged in
    /// and asks for a page, with the way back in `?return_to=` ([`ReturnTo`](crate::ReturnTo)). Default: none, so he gets a
    /// 401, as what a script fetches does in any case.
    pub fn log_in_page(self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.with(|settings| settings.log_in_page = Some(path))
    }

    /// The page to which [`Fresh`](crate::Fresh), and others that ask for a higher level, send who is logged in and has to
    /// prove once more who he is. Default: none, so he gets a 403.
    pub fn step_up_page(self, path: impl Into<String>) -> Self {
        let path = path.into();
        self.with(|settings| settings.step_up_page = Some(path))
    }

    /// What happens when somebody comes with a cookie that a timed renewal had replaced long before. Default: observers
    /// are told.
    pub fn if_reused(self, if_reused: IfReused) -> Self {
        self.with(|settings| settings.if_reused = if_reused)
    }

    /// What a request gets whose session cannot be read. Default: the error. A route may have a policy of its own, in its
    /// requests' extensions.
    pub fn if_unavailable(self, if_unavailable: IfUnavailable) -> Self {
        self.with(|settings| settings.if_unavailable = if_unavailable)
    }

    /// Which responses keep the edits of their request. Default: all but those of status 5xx.
    pub fn save_on(self, save_on: SaveOn) -> Self {
        self.with(|settings| settings.save_on = save_on)
    }

    /// What the client gets if the edits could not be saved. Default: the error.
    pub fn if_not_saved(self, if_not_saved: IfNotSaved) -> Self {
        self.with(|settings| settings.if_not_saved = if_not_saved)
    }

    /// Takes over the sessions of the software that was here before, one by one as their visitors come, so that a move logs
    /// nobody out. Default: none are.
    ///
    /// Who comes without a living session of this layer, and with the cookie of before, goes on in a session of this layer
    /// with what the old one held: its fields, its user, the time that it had left. That happens once, however many
    /// requests come at the same time and on whatever servers: the new id is derived from the old one by the oldest key of
    /// the ring, so all of them meet in one session, and it is created only where there was none. Then the old one is
    /// removed. A process may die at any point in between; whoever comes next goes on from there.
    ///
    /// The browser gets the new id in a cookie beside this layer's own: its name with `-moved` behind it (`__Host-id-moved`),
    /// which a balancer can go by. This layer's own comes with a login or another new id: before that, it could take the
    /// place of the one that the answer to a parallel login has brought. It counts before the one beside it, and that before
    /// the old one, which leads to the same session. Both work until a login, [`rotate`](crate::Session::rotate) or a
    /// timed renewal replaces the session's first id; a logout takes all of them away, and ends what they lead to.
    ///
    /// While sessions move, keep the oldest key in the ring, the realm and the cookie's name as they are. Not for a layer with
    /// [`tenants`](Self::tenants): an old session does not say whose it is.
    ///
    /// # Errors
    /// A session of before that cannot be read is an error of the request that came with it, like one of this layer.
    /// What is over [`size_limit`](Self::size_limit) is `is_too_large`. Nothing is removed then.
    ///
    /// # Security
    /// The user of an old session is logged in here by its word alone, without a check of his own. Whoever can write
    /// to the store of before could do as much there. When he has proved who he is nobody knows: to [`Fresh`](crate::Fresh) it
    /// is long ago.
    ///
    /// What `__Host-` promises of this layer's cookie is suspended for who comes without it: a host under the same domain can
    /// plant an old cookie, unless its name begins with `__Host-` too, and the visitor goes on in a session of somebody else's.
    ///
    /// "Log out everywhere" does not reach sessions that were not taken over
    /// yet, or whose take-over died before its last step, but for those that come within two minutes: they are ended.
    /// [`revoke_everybody`](crate::Sessions::revoke_everybody) ends all that were taken over by then, and none that come
    /// later: before it, remove `adopt`, or the old sessions from their store.
    pub fn adopt(self, predecessor: impl Predecessor) -> Self {
        let predecessor: Arc<dyn Predecessor> = Arc::new(predecessor);
        self.with(|settings| settings.predecessor = Some(predecessor))
    }

    /// Tells an observer what happens to sessions. Each call adds one.
    pub fn observer(self, observer: impl Observer) -> Self {
        let observer = Arc::new(observer);
        self.with(|settings| settings.observers.push(observer))
    }

    /// Marks this layer as another one than the first: its sessions are those of `Session<T, M>`.
    pub fn marker<M>(self) -> RedisSessionLayer<M> {
        RedisSessionLayer { settings: self.settings, marker: PhantomData }
    }

    /// Waits until all writes are done that requests have begun, so that the process may end without losing one: also those
    /// of requests whose clients went away, which go on in the background, and logouts that failed and are tried again.
    ///
    /// To be called when the server takes no more requests; the layer itself goes on working.
    ///
    /// ```no_run
    /// # use axum::Router;
    /// # use redis_session::{Error, KeyRing, MemoryStore, RedisSessionLayer};
    /// # use tokio::net::TcpListener;
    /// # async fn told_to_end() {}
    /// # async fn serve(listener: TcpListener) -> Result<(), Box<dyn std::error::Error>> {
    /// let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
    /// let app: Router = Router::new().layer(sessions.clone());
    /// axum::serve(listener, app).with_graceful_shutdown(told_to_end()).await?;
    /// sessions.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Mostly that takes a few milliseconds, and while the store does not answer about one of its deadlines (250
    /// milliseconds). A logout that fails is tried for 30 seconds: with one, it is at most 32 seconds and four deadlines, of
    /// the slowest store where tenants have stores of their own, each with the time that this layer's writes wait for
    /// replicas. Whoever has less time puts a timeout around it.
    ///
    /// # Errors
    /// `is_outcome_unknown`: after that time, writes are still under way; their number is in the text.
    pub async fn close(&self) -> Result<(), Error> {
        let under_way = &self.settings.under_way;
        let waits = self.settings.durability.replication().map_or(Duration::ZERO, |waits| waits.within);
        let bound = ENDS_ARE_TRIED_FOR + LONGEST_PAUSE + (self.settings.longest_deadline() + waits) * 4;
        under_way.close();
        let done = tokio::time::timeout(bound, under_way.wait()).await;
        done.map_err(|_| {
            let count = under_way.len();
            Error::new(Kind::OutcomeUnknown, format!("{count} writes of sessions were still under way after {bound:?}"))
        })
    }

    /// A scripted generator, for tests of what happens when ids repeat or the generator fails.
    #[doc(hidden)]
    pub fn random(self, random: Random) -> Self {
        self.with(|settings| settings.random = random)
    }

    /// Whether these settings can work. Without this call, adding the layer to a router panics with the same text.
    ///
    /// # Errors
    /// `is_config`: the cookie, the timeouts, the realm, `tenants` with `adopt`, or reads from replicas of a store that has none
    /// cannot be as they are; the text says what to write.
    pub fn check(self) -> Result<Self, Error> {
        self.settings.check()?;
        Ok(self)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        change(settings);
        settings.derive_signers();
        settings.tenants = settings.tenants.as_ref().map(Tenants::afresh);
        self
    }
}

impl Settings {
    fn check(&self) -> Result<(), Error> {
        self.cookie.check()?;
        self.expiry.check()?;
        self.durability.check()?;
        if self.read_from.check()? != ReadFrom::Primary && self.store.replicas().is_none() {
            let message = "ReadFrom::Replicas needs a store that knows its replicas: connect to redis-cluster://host or \
                redis-sentinel://host/name, or write ReadFrom::Primary";
            return Err(Error::new(Kind::Config, message));
        }
        if let Some(predecessor) = &self.predecessor {
            predecessor.cookie().check_syntax()?;
            if self.tenants.is_some() {
                let message = "sessions of before do not say of which tenant they are, so the first to ask would get \
                    them: take them over by a layer without `tenants`, or remove `adopt`";
                return Err(Error::new(Kind::Config, message));
            }
            let own = [self.cookie.clone(), self.cookie.moved(), self.cookie.wrote()];
            if own.iter().any(|own| own.name() == predecessor.cookie().name()) {
                let message = "the cookie of the sessions that are taken over has the name of this layer's own: give this layer's another one";
                return Err(Error::new(Kind::Config, message));
            }
        }
        [&self.log_in_page, &self.step_up_page].into_iter().flatten().try_for_each(|page| check_page(page))?;
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        if !(1..=32).contains(&self.realm.len()) || !self.realm.bytes().all(fits) {
            let message = "a realm has small letters, digits, \"-\" and \"_\" only, and 32 at most";
            return Err(Error::new(Kind::Config, message));
        }
        Ok(())
    }

    /// To be called where the realm or the cookie's name is another one now.
    pub(crate) fn derive_signers(&mut self) {
        self.signer = self.keys.signer(&self.realm, self.cookie.name());
        self.moved_signer = self.keys.signer(&self.realm, self.cookie.moved().name());
    }

    /// The index of users' sessions.
    pub(crate) fn index(&self) -> Result<&dyn Index, Error> {
        let none =
            || Error::new(Kind::Config, "this store has no index of users' sessions, so nobody can be logged in");
        self.store.index().ok_or_else(none)
    }

    /// Whether a response of this status drops the edits of its request.
    pub(crate) fn drops_edits(&self, status: StatusCode) -> bool {
        match self.save_on {
            SaveOn::NoServerError => status.is_server_error(),
            SaveOn::Success => status.is_server_error() || status.is_client_error(),
            SaveOn::Always => false,
        }
    }

    /// Tells of an error of the store, and makes it ours.
    pub(crate) fn store_failed(&self, error: redis_session_core::Error) -> Error {
        log_failure(&error, &self.realm);
        self.tell(Event::StoreFailed(error.kind()));
        error.into()
    }

    /// Tells of a write that was made and is not where it was to be, and makes its error ours.
    pub(crate) fn not_replicated(&self, error: redis_session_core::Error) -> Error {
        log_missed(&error, &self.realm);
        self.tell(Event::NotReplicated);
        error.into()
    }

    /// Tells the log and the observers. One that panics stops neither the others nor the request.
    pub(crate) fn tell(&self, event: Event) {
        log(event, &self.realm);
        self.tell_observers(event, |observer| observer.observe(event));
    }

    /// Tells the observers, and not the log, whose old cookie somebody has.
    pub(crate) fn tell_of_reuse(&self, user: &User) {
        self.tell_observers(Event::Reused, |observer| observer.reused(user.as_str()));
    }

    fn tell_observers(&self, event: Event, tell: impl Fn(&dyn Observer)) {
        for observer in &self.observers {
            if catch_unwind(AssertUnwindSafe(|| tell(&**observer))).is_err() {
                tracing::error!(target: "redis_session", event = event.name(), "an observer panicked");
            }
        }
    }
}

/// Whether visitors can be sent there.
pub(crate) fn check_page(page: &str) -> Result<(), Error> {
    if ReturnTo::new(page).as_str() == page {
        return Ok(());
    }
    let message = "the log-in page and the step-up page must be paths of this site: \"/login\"";
    Err(Error::new(Kind::Config, message))
}

impl<S, L> Layer<S> for RedisSessionLayer<L> {
    type Service = RedisSession<S, L>;

    /// # Panics
    /// If the settings cannot work; [`check`](RedisSessionLayer::check) tells so without a panic.
    fn layer(&self, inner: S) -> Self::Service {
        if let Err(error) = self.settings.check() {
            panic!("{error}");
        }
        RedisSession::new(inner, self.settings.clone())
    }
}

impl<L> Clone for RedisSessionLayer<L> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), marker: PhantomData }
    }
}

/// No keys, no credentials.
impl<L> fmt::Debug for RedisSessionLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSessionLayer")
            .field("realm", &self.settings.realm)
            .field("cookie", &self.settings.cookie)
            .field("expiry", &self.settings.expiry)
            .finish_non_exhaustive()
    }
}
