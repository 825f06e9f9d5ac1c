//! Bugs that were found, each in the smallest test that showed it.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use redis_session::{Clock, Expiry, KeyRing, MemoryStore, RedisSessionLayer, RedisStore, Session, Store};
use redis_session_core::{
    BoxFuture, Create, Created, End, Ended, Error, Index, Kind, Random, Save, Saved, SessionKey, Stored, Time, Token,
};
use redis_session_testkit::{Action, Browser, Proxy, RedisServer};
use tokio::sync::Notify;
use tower::ServiceExt;

use crate::visitor::{Place, on_both_stores};

/// A store that makes the first save, and loses the reply; then others write, and what is sent again arrives late.
struct LostThenLate {
    store: MemoryStore,
    clock: Clock,
    saves: AtomicU32,
}

impl LostThenLate {
    fn new() -> Self {
        let clock = Clock::manual();
        Self { store: MemoryStore::new().clock(clock.clone()), clock, saves: AtomicU32::new(0) }
    }

    async fn save_and_lose_the_reply(&self, key: &SessionKey, save: &Save) -> Result<Saved, Error> {
        self.store.save(key, save).await?;
        for _ in 0..4 {
            let token = Some(Token::random(&Random::system())?);
            let other =
                Save { token, base: save.token.unwrap(), merges: true, changes: Default::default(), ..save.clone() };
            assert!(matches!(self.store.save(key, &other).await?, Saved::Saved { .. }));
        }
        Err(Error::new(Kind::OutcomeUnknown, "the reply was lost"))
    }
}

impl Store for LostThenLate {
    fn now(&self) -> Option<Time> {
        self.store.now()
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        self.store.load(key)
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        self.store.create(key, create)
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        if self.saves.fetch_add(1, Ordering::Relaxed) == 0 {
            return Box::pin(self.save_and_lose_the_reply(key, save));
        }
        self.clock.advance(Duration::from_secs(1));
        self.store.save(key, save)
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        self.store.end(key, end)
    }
}

// It was reported as "not made": the versions that a record remembers no longer showed it.
#[tokio::test]
async fn a_write_whose_reply_is_lost_and_whose_second_copy_is_late_is_of_unknown_outcome() {
    let count = async |session: Session| session.increment("visits", 1);
    let layer = RedisSessionLayer::with_store(LostThenLate::new(), KeyRing::random().unwrap());
    let app = Router::new().route("/", get(count)).layer(layer);
    let visitor = Browser::new(app.clone());
    visitor.get("/").await;
    let cookie = format!("__Host-id={}", visitor.cookie("__Host-id").unwrap());
    let request = Request::get("/").header("cookie", cookie).body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let error = response.extensions().get::<redis_session::Error>().unwrap();
    assert!(error.is_outcome_unknown(), "{error:?}");
}

// The last write of a slow request failed, or there was none, so nothing told it that its session was over; and its
// answer took the cookie of a newer session away.
#[tokio::test]
async fn a_session_that_is_over_before_its_answer_leaves_has_no_cookie() {
    let place = Place::in_memory();
    let begin_and_fail = async |takes: Duration| {
        let visitor = place.visitor();
        visitor
            .request(async |request| {
                let session: Session = Session::from_extensions(request.extensions()).await.unwrap();
                session.insert("visits", &1).unwrap();
                session.save().await.unwrap();
                place.pass(takes);
                StatusCode::INTERNAL_SERVER_ERROR
            })
            .await;
        visitor.cookie().is_some()
    };
    let minute = Duration::from_secs(60);
    assert!(begin_and_fail(30 * minute).await);
    assert!(!begin_and_fail(31 * minute).await);
}

// What a request has not seen may let its session live longer than it knows.
#[tokio::test]
async fn a_session_that_another_request_has_prolonged_has_its_new_cookie() {
    let (place, minute) = (Place::in_memory(), Duration::from_secs(60));
    let visitor = place.visitor();
    visitor.visit(async |session| session.insert("visits", &1)).await;
    let (before, other) = (visitor.cookie(), visitor.copy());
    visitor
        .request(async |request| {
            let session: Session = Session::from_extensions(request.extensions()).await.unwrap();
            other.visit(async |session| session.remember(1000 * minute).await).await;
            session.rotate().await.unwrap();
            place.pass(31 * minute);
            StatusCode::INTERNAL_SERVER_ERROR
        })
        .await;
    assert_ne!(visitor.cookie(), before);
    assert_eq!(visitor.fields().await, [("visits".to_owned(), "1".to_owned())]);
}

// It began one without fields: a key in the store, and a cookie for a visitor who had done nothing.
#[tokio::test]
async fn a_transaction_that_changes_nothing_begins_no_session_and_a_save_begins_one() {
    on_both_stores(async |place| {
        let look = async |session: &Session| {
            let mut visits = session.view::<BTreeMap<String, u64>>()?;
            visits.transaction(|visits| Ok::<_, redis_session::Error>(visits.len())).await
        };
        let visitor = place.visitor();
        assert_eq!(visitor.visit(async |session| look(&session).await).await, 0);
        assert_eq!((visitor.cookie(), place.events.take()), (None, vec![]));
        assert_eq!(place.redis.as_ref().map_or(0, |redis| redis.run(&["DBSIZE"]).int()), 0);
        visitor
            .visit(async |session| {
                session.insert("visits", &1)?;
                look(&session).await
            })
            .await;
        assert_eq!(visitor.fields().await, [("visits".to_owned(), "1".to_owned())]);
        let other = place.visitor();
        other.visit(async |session| session.save().await).await;
        assert!(other.cookie().is_some());
    })
    .await;
}

// It began in another place, pushed the later login out, and so on in turn: of fifty at once most ended with a 500.
#[tokio::test]
async fn r43_a_login_that_a_later_one_has_pushed_out_before_it_was_written_is_refused_and_the_later_one_stays() {
    let redis = RedisServer::start();
    let (proxy, keys, one) = (Proxy::start(redis.address()), KeyRing::random().unwrap(), NonZeroUsize::MIN);
    let place = async |url: &str| {
        let layer = RedisSessionLayer::connect(url, keys.clone()).await.unwrap();
        Place::around(layer.sessions_per_user(one), None)
    };
    let (here, there) = (place(&proxy.url()).await, place(&redis.url()).await);
    // Redis learns the scripts.
    there.visitor().visit(async |session| session.log_in("ada").await).await;
    let mut held = false;
    proxy.fault(move |command| match command.has("ada") && !std::mem::replace(&mut held, true) {
        true => Action::HoldThenSend { after: Duration::MAX, cut: false },
        false => Action::Pass,
    });
    let (first, later) = (here.visitor(), there.visitor());
    let log_in = first.try_visit(async |session| session.log_in("ada").await);
    let overtaken = async {
        proxy.until_held(1).await;
        later.visit(async |session| session.log_in("ada").await).await;
        proxy.release();
    };
    let (answer, ()) = tokio::join!(log_in, overtaken);
    assert!(answer.error.unwrap().is_login_refused());
    assert_eq!(later.visit(async |session| session.user::<String>()).await.as_deref(), Some("ada"));
    assert_eq!(there.layer.sessions().list("ada").await.unwrap().len(), 1);
}

/// Stops one write of a session until the test lets it go on.
#[derive(Clone, Default)]
struct Stop {
    is_set: Arc<AtomicBool>,
    reached: Arc<Notify>,
    go_on: Arc<Notify>,
    fails: Arc<AtomicBool>,
}

impl Stop {
    async fn pass(&self) -> Result<(), Error> {
        if self.is_set.swap(false, Ordering::Relaxed) {
            self.reached.notify_one();
            self.go_on.notified().await;
            if self.fails.load(Ordering::Relaxed) {
                return Err(Error::new(Kind::Unavailable, "it was not sent"));
            }
        }
        Ok(())
    }

    /// Runs `during` while the next write of `slow` is stopped.
    async fn while_it_writes<A>(&self, slow: impl Future<Output = A>, during: impl Future<Output = ()>) -> A {
        self.is_set.store(true, Ordering::Relaxed);
        let during = async {
            self.reached.notified().await;
            during.await;
            self.go_on.notify_one();
        };
        tokio::join!(slow, during).0
    }

    /// On both stores, with this stop before each, and with another process on the same store.
    async fn on_both_stores(test: impl AsyncFn(Place, RedisSessionLayer, Self)) {
        let run = async |store: Arc<dyn Store>, redis| {
            let (stop, keys) = (Self::default(), KeyRing::random().unwrap());
            let layer = || RedisSessionLayer::with_store(Stopped(store.clone(), stop.clone()), keys.clone());
            test(Place::around(layer(), redis), layer(), stop.clone()).await;
        };
        run(Arc::new(MemoryStore::new()), None).await;
        let redis = RedisServer::start();
        let store = RedisStore::connect(&redis.url()).await.unwrap();
        run(Arc::new(store), Some(redis)).await;
    }
}

struct Stopped(Arc<dyn Store>, Stop);

impl Store for Stopped {
    fn now(&self) -> Option<Time> {
        self.0.now()
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        self.0.load(key)
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        Box::pin(async move {
            self.1.pass().await?;
            self.0.create(key, create).await
        })
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(async move {
            self.1.pass().await?;
            self.0.save(key, save).await
        })
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        self.0.end(key, end)
    }

    fn index(&self) -> Option<&dyn Index> {
        self.0.index()
    }
}

// The click that failed took away the entry that the other one's session had: nothing that ends a user's sessions would
// have found it.
#[tokio::test]
async fn a_click_that_fails_leaves_the_session_of_the_other_click_in_the_list() {
    Stop::on_both_stores(async |place, other_process, stop| {
        let visitor = place.visitor();
        visitor.visit(async |session| session.insert("cart", &["tea"])).await;
        let (first, second) = (visitor.copy(), visitor.copy().before(&other_process));
        stop.fails.store(true, Ordering::Relaxed);
        let failed = first.try_visit(async |session| session.log_in("ada").await);
        let other = second.visit(async |session| session.log_in("ada").await);
        let failed = stop.while_it_writes(failed, other).await;
        assert!(failed.error.unwrap().is_unavailable());
        assert_eq!(place.layer.sessions().list("ada").await.unwrap().len(), 1);
        assert_eq!(place.layer.sessions().revoke_all("ada").await.unwrap(), 1);
    })
    .await;
}

// Each tried again and pushed the other one out, until both were told that the random generator is broken.
#[tokio::test]
async fn a_login_that_a_later_one_has_pushed_out_is_refused_and_does_not_try_again() {
    Stop::on_both_stores(async |mut place, _, stop| {
        place.layer = place.layer.sessions_per_user(NonZeroUsize::MIN);
        let (early, late) = (place.visitor(), place.visitor());
        let pushed_out = early.try_visit(async |session| session.log_in("ada").await);
        let other = late.visit(async |session| session.log_in("ada").await);
        let pushed_out = stop.while_it_writes(pushed_out, other).await;
        assert!(pushed_out.error.unwrap().is_login_refused());
        assert_eq!(place.layer.sessions().list("ada").await.unwrap().len(), 1);
        assert_eq!(late.visit(async |session| session.user::<String>()).await.as_deref(), Some("ada"));
    })
    .await;
}

// It was given the id from before the renewal, of the session that this very request had ended.
#[tokio::test]
async fn a_switch_of_users_that_is_refused_gives_no_cookie_of_the_session_that_it_ended() {
    on_both_stores(async |mut place| {
        let minute = Duration::from_secs(60);
        place.layer = place.layer.expiry(Expiry::default().new_id_every(minute));
        let visitor = place.visitor();
        visitor.visit(async |session| session.log_in("ada").await).await;
        place.pass(2 * minute);
        let old = visitor.copy();
        visitor.visit(async |session| session.user::<String>()).await;
        let long_ago = Instant::now().checked_sub(2 * minute).unwrap();
        let refused = old.try_visit(async |session| session.log_in("bob").verified_at(long_ago).await).await;
        assert!(refused.error.unwrap().is_login_refused());
        assert_eq!(refused.page.set_cookies().len(), 0);
    })
    .await;
}

/// What becomes of the answer to a save.
#[derive(Clone, Copy)]
enum Answer {
    /// It comes at the very end of the deadline.
    Late,
    Lost,
}

/// A store that has an answer in mind for each of the next saves.
#[derive(Clone)]
struct Planned(Arc<MemoryStore>, Arc<Mutex<VecDeque<Answer>>>);

impl Store for Planned {
    fn now(&self) -> Option<Time> {
        self.0.now()
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        self.0.load(key)
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        self.0.create(key, create)
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        let planned = self.1.lock().unwrap().pop_front();
        Box::pin(async move {
            let saved = self.0.save(key, save).await;
            match planned {
                None => saved,
                Some(Answer::Late) => {
                    tokio::time::sleep(self.deadline()).await;
                    saved
                }
                Some(Answer::Lost) => Err(Error::new(Kind::OutcomeUnknown, "the reply was lost")),
            }
        })
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        self.0.end(key, end)
    }
}

// It forgot the newer record that it had been answered with. The next one stood on the version before, which is none of the
// last four, so that with one lost reply its outcome was unknown.
#[tokio::test(start_paused = true)]
async fn a_save_that_comes_too_late_for_another_try_keeps_what_it_learned_of_the_session() {
    let store = Planned(Arc::new(MemoryStore::new().clock(Clock::manual())), Arc::default());
    let keys = KeyRing::random().unwrap();
    let place = Place::around(RedisSessionLayer::with_store(store.clone(), keys.clone()), None);
    let visitor = place.visitor();
    visitor.visit(async |session| session.insert("others", &0)).await;
    // Their edits do not come through the queue of this process.
    let other = visitor.copy().before(&RedisSessionLayer::with_store(store.clone(), keys));
    visitor
        .visit(async |session| {
            let mut visits = session.view::<BTreeMap<String, u64>>()?;
            visits.update(|visits| *visits.entry("mine".into()).or_default() += 1)?;
            for _ in 0..5 {
                other.visit(async |session| session.increment("others", 1)).await;
            }
            store.1.lock().unwrap().push_back(Answer::Late);
            assert!(session.save().await.unwrap_err().is_contended());
            store.1.lock().unwrap().push_back(Answer::Lost);
            session.save().await
        })
        .await;
    assert_eq!(visitor.fields().await, [("mine".into(), "1".into()), ("others".into(), "5".into())]);
}

// It was given no cookie: who had not got the answer with the renewed id, and only tried the same again, never got further.
#[tokio::test]
async fn a_rotation_that_a_timed_renewal_has_overtaken_brings_the_renewed_id_for_the_next_try() {
    on_both_stores(async |mut place| {
        let minute = Duration::from_secs(60);
        place.layer = place.layer.expiry(Expiry::default().new_id_every(minute));
        let visitor = place.visitor();
        visitor.visit(async |session| session.log_in("ada").await).await;
        place.pass(2 * minute);
        // The answer with the renewed id goes elsewhere.
        let renewed = visitor.copy();
        renewed.visit(async |session| session.user::<String>()).await;
        assert_ne!(renewed.cookie(), visitor.cookie());
        let promote = async |session: Session| {
            session.insert("role", "admin")?;
            session.rotate().await
        };
        let refused = visitor.try_visit(promote).await;
        assert!(refused.error.unwrap().is_gone());
        assert_eq!(visitor.cookie(), renewed.cookie());
        assert_eq!(visitor.fields().await, []);
        visitor.visit(promote).await;
        assert_ne!(visitor.cookie(), renewed.cookie());
        assert_eq!(visitor.fields().await, [("role".to_owned(), "\"admin\"".to_owned())]);
    })
    .await;
}
