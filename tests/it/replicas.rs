//! Reads that replicas answer, over HTTP: what is shown, what never goes by a replica's word, and that visitors see their own
//! edits.

#![allow(clippy::print_stdout)] // figures

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::{Extension, Router, routing::get};
use http::header::SET_COOKIE;
use http::{Method, Request};
use redis_session::{
    CsrfToken, Error, Event, Fresh, IfUnavailable, KeyRing, LoggedIn, MemoryStore, ReadFrom, Reason, RedisSessionLayer,
    RequireLogin, Session, Status,
};
use redis_session_core::{
    BoxFuture, Create, Created, End, Ended, Error as CoreError, Index, Kind, Read, ReplicaRead, Replicas, Save, Saved,
    SessionKey, Store, Stored, Time,
};
use redis_session_testkit::{Browser, Page, RedisServer, Sentinels};

use crate::visitor::{Place, Visitor};
use crate::watched::{Watched, patient};

const BEHIND: ReadFrom = ReadFrom::Replicas { behind: Duration::from_secs(2) };
const MARK: &str = "__Host-id-wrote";

/// A store whose replica shows what was there when it last caught up.
#[derive(Clone)]
struct Behind {
    primary: Watched,
    replica: Arc<Mutex<Replica>>,
}

#[derive(Default)]
struct Replica {
    known: HashSet<SessionKey>,
    has: HashMap<SessionKey, Stored>,
    /// How often it was used.
    answers: u32,
}

impl Behind {
    fn new() -> Self {
        Self { primary: Watched::new(), replica: Arc::default() }
    }

    async fn catch_up(&self) {
        let known: Vec<_> = self.replica.lock().unwrap().known.iter().cloned().collect();
        for key in known {
            let stored = self.primary.load(&key).await.unwrap();
            let mut replica = self.replica.lock().unwrap();
            match stored {
                Some(stored) => replica.has.insert(key, stored),
                None => replica.has.remove(&key),
            };
        }
        self.primary.calls();
        self.replica.lock().unwrap().answers = 0;
    }

    /// How many reads the replica, and how many the primary has answered since the last time.
    fn reads(&self) -> (u32, u32) {
        (std::mem::take(&mut self.replica.lock().unwrap().answers), self.primary.calls().loads)
    }

    fn know(&self, key: &SessionKey) {
        self.replica.lock().unwrap().known.insert(key.clone());
    }
}

impl Store for Behind {
    fn now(&self) -> Option<Time> {
        self.primary.now()
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, CoreError>> {
        self.primary.load(key)
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, CoreError>> {
        self.know(key);
        self.primary.create(key, create)
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, CoreError>> {
        self.primary.save(key, save)
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, CoreError>> {
        self.primary.end(key, end)
    }

    fn replicas(&self) -> Option<&dyn Replicas> {
        Some(self)
    }

    fn index(&self) -> Option<&dyn Index> {
        self.primary.index()
    }
}

impl Replicas for Behind {
    fn read<'a>(&'a self, key: &'a SessionKey, read: &'a ReplicaRead) -> BoxFuture<'a, Result<Read, CoreError>> {
        Box::pin(async move {
            {
                let mut replica = self.replica.lock().unwrap();
                if let Some(Stored::Record(record)) = replica.has.get(key).cloned()
                    && read.takes(&record, self.now())
                {
                    replica.answers += 1;
                    return Ok(Read::Replica(record));
                }
            }
            self.primary.load(key).await.map(Read::Primary)
        })
    }
}

fn layer(store: &Behind) -> RedisSessionLayer {
    RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap()).read_from(BEHIND)
}

/// A visitor whose replica does not know yet what he wrote last, and whose browser has forgotten that he did.
struct Old {
    store: Behind,
    place: Place,
    visitor: Visitor,
}

impl Old {
    /// The replica has the fields `n` (1) and `lang` ("en"), and the primary `n` (2) and `lang` ("de").
    async fn new() -> Self {
        let store = Behind::new();
        let place = Place::around(layer(&store), None);
        let visitor = place.visitor();
        visitor
            .visit(async |session| {
                session.insert("lang", "en")?;
                session.increment("n", 1)
            })
            .await;
        store.catch_up().await;
        visitor
            .visit(async |session| {
                session.insert("lang", "de")?;
                session.increment("n", 1)
            })
            .await;
        let old = Self { store, place, visitor };
        old.forgets();
        old
    }

    fn forgets(&self) {
        self.visitor.browser.jar().forget(MARK);
        self.store.reads();
        self.place.events.take();
    }

    async fn now(&self) -> BTreeMap<String, String> {
        self.store.catch_up().await;
        self.visitor.fields().await.into_iter().collect()
    }
}

fn is(fields: &BTreeMap<String, String>, n: &str, lang: &str) -> bool {
    fields["n"] == n && fields["lang"] == lang
}

async fn session_of<B>(request: &Request<B>) -> Result<Session, Error> {
    Session::from_extensions(request.extensions()).await
}

async fn n(session: &Session) -> Result<Option<u64>, Error> {
    session.get("n")
}

#[tokio::test]
async fn what_a_replica_has_is_shown_and_the_primary_is_left_alone() {
    let old = Old::new().await;
    for _ in 0..3 {
        assert_eq!(old.visitor.visit(async |session| n(&session).await).await, Some(1), "as the replica has it");
    }
    assert_eq!(old.store.reads(), (3, 0));
    let stranger = old.place.visitor();
    assert_eq!(stranger.visit(async |session| Ok(session.status())).await, Status::New);
    assert_eq!(old.store.reads(), (0, 0), "without a cookie nobody is asked");
}

#[tokio::test]
async fn his_own_edits_are_shown_to_whom_a_browser_says_that_there_were_some() {
    let store = Behind::new();
    let place = Place::around(layer(&store), None);
    let visitor = place.visitor();
    let marks = |page: &Page| {
        let lines = page.headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap().to_owned());
        lines.filter(|line| line.starts_with(MARK)).collect::<Vec<_>>()
    };
    let count = async |session: Session| session.increment("n", 1);
    // The first edit comes with a new id, which no replica has an old session for.
    assert!(marks(&visitor.try_visit(count).await.page).is_empty());
    store.catch_up().await;
    assert!(marks(&visitor.try_visit(async |session| n(&session).await).await.page).is_empty());
    let page = visitor.try_visit(count).await.page;
    assert_eq!(marks(&page), ["__Host-id-wrote=1; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=3"]);
    assert_eq!(page.header("cache-control").as_deref(), Some("no-store"));
    store.reads();
    assert_eq!(visitor.visit(async |session| n(&session).await).await, Some(2));
    assert_eq!(store.reads(), (0, 1));
    // As long as a replica may be behind, and no longer.
    visitor.browser.jar().advance(Duration::from_secs(3));
    store.catch_up().await;
    assert_eq!(visitor.visit(async |session| n(&session).await).await, Some(2));
    assert_eq!(store.reads(), (1, 0));
    // Nothing was saved, nothing is said.
    let failed = visitor.request(async |request| {
        let session = session_of(&request).await?;
        session.increment("n", 1)?;
        Ok::<_, Error>(http::StatusCode::INTERNAL_SERVER_ERROR)
    });
    assert!(marks(&failed.await.page).is_empty());
    visitor.visit(count).await;
    assert_eq!(visitor.browser.cookie(MARK).as_deref(), Some("1"));
    visitor.visit(async |session| session.destroy().await).await;
    assert!(visitor.browser.jar().cookies().is_empty(), "it goes with the session's");
}

#[tokio::test]
async fn nothing_is_written_by_a_replicas_word_and_no_edit_is_lost() {
    let old = Old::new().await;
    // On the primary's value.
    old.visitor.visit(async |session| session.increment("n", 1)).await;
    assert_eq!(old.store.reads(), (1, 1), "one read more, and no try in vain");
    assert_eq!(old.place.events.take(), [Event::Saved { tries: 1 }]);
    assert!(is(&old.now().await, "3", "\"de\""));

    // An edit that would change nothing where the replica is.
    let old = Old::new().await;
    old.visitor.visit(async |session| session.insert("lang", "en")).await;
    assert!(is(&old.now().await, "2", "\"en\""));
    let old = Old::new().await;
    let saved = async |session: Session| {
        session.insert("lang", "en")?;
        session.save().await
    };
    old.visitor.visit(saved).await;
    assert!(is(&old.now().await, "2", "\"en\""));
    // One that changes nothing where the primary is.
    let old = Old::new().await;
    old.visitor.visit(async |session| session.insert("lang", "de")).await;
    assert_eq!(old.place.events.take(), []);

    let old = Old::new().await;
    type Fields = BTreeMap<String, serde_json::Value>;
    let counted = old.visitor.visit(async |session| {
        let mut view = session.view::<Fields>()?;
        view.transaction(|fields| {
            let n = fields["n"].as_u64().unwrap();
            fields.insert("n".to_owned(), (n + 10).into());
            Ok::<_, Error>(n)
        })
        .await
    });
    assert_eq!(counted.await, 2);
    assert!(is(&old.now().await, "12", "\"de\""));
    let old = Old::new().await;
    let updated = async |session: Session| {
        let update = |fields: &mut Fields| {
            let n = fields["n"].as_u64().unwrap();
            fields.insert("n".to_owned(), (n + 10).into());
        };
        session.view::<Fields>()?.update(update)
    };
    old.visitor.visit(updated).await;
    assert!(is(&old.now().await, "12", "\"de\""));

    // By name, and at once.
    let old = Old::new().await;
    let all = async |session: Session| {
        session.increment("n", 1)?;
        session.save().await?;
        assert_eq!(n(&session).await?, Some(3));
        session.rotate().await?;
        session.remember(Duration::from_secs(3600)).await?;
        session.log_in(7).await
    };
    old.visitor.visit(all).await;
    assert_eq!(old.store.reads().0, 1);
    assert!(is(&old.now().await, "3", "\"de\""));

    // A renewal of the idle timeout, which only the primary knows to be due no more.
    let old = Old::new().await;
    old.store.primary.clock().advance(Duration::from_secs(300));
    let other = old.visitor.copy();
    other.request(async |request| session_of(&request).await.map(drop)).await;
    old.forgets();
    assert_eq!(old.visitor.visit(async |session| n(&session).await).await, Some(1));
    assert_eq!(old.place.events.take(), []);
}

#[tokio::test]
async fn a_session_that_ended_elsewhere_is_not_written_to_and_not_brought_back() {
    for ends in 0..2 {
        let old = Old::new().await;
        let elsewhere = old.visitor.copy();
        match ends {
            0 => elsewhere.visit(async |session| session.destroy().await).await,
            _ => elsewhere.visit(async |session| session.rotate().await).await,
        }
        old.forgets();
        assert_eq!(old.visitor.visit(async |session| Ok(session.status())).await, Status::Alive, "a moment longer");
        let answer = old.visitor.try_visit(async |session| session.increment("n", 1)).await;
        assert_eq!(answer.page.status, 200);
        assert!(answer.page.headers.get(SET_COOKIE).is_none());
        assert!(old.place.events.take().iter().any(|event| matches!(event, Event::Dropped(_))));
        let saved = old.visitor.visit(async |session| Ok(session.save().await.unwrap_err().is_gone())).await;
        assert!(saved);
        // Nor may who knows an old id end the session under its new one.
        let ended = old.visitor.visit(async |session| Ok(session.destroy().await)).await;
        assert_eq!(ended.is_err(), ends == 1, "{ended:?}");
        assert_eq!(elsewhere.visit(async |session| Ok(session.status())).await == Status::Alive, ends == 1);
    }
}

/// Pages that guards are before, and one that shows who is there.
fn pages(layer: RedisSessionLayer) -> Browser<Router> {
    let who = async |session: Session| Ok::<_, Error>(format!("{:?}", session.user::<u64>()?));
    let app = Router::new()
        .route("/exact", get(who))
        .route_layer(Extension(ReadFrom::Primary))
        .route("/shown", get(who).post(who))
        .route("/guarded", get(async |user: LoggedIn<u64>| user.to_string()))
        .route("/fresh", get(async |user: Fresh<u64>| user.to_string()))
        .route("/both", get(async |_: Session, user: LoggedIn<u64>| user.to_string()))
        .route("/required", get(async || "in").route_layer(RequireLogin::new()))
        .route("/in", get(async |session: Session| session.log_in(7).await))
        .route("/out", get(async |session: Session| session.log_out().await))
        .layer(layer);
    Browser::new(app)
}

const GUARDED: [&str; 4] = ["/guarded", "/fresh", "/both", "/required"];

#[tokio::test]
async fn r41_no_guard_goes_by_a_replicas_word() {
    let store = Behind::new();
    let owner = pages(layer(&store));
    owner.get("/in").await;
    store.catch_up().await;
    owner.jar().forget(MARK);
    let thief = owner.copy();
    for path in GUARDED {
        assert_eq!(thief.get(path).await.status, 200, "{path}");
    }
    assert_eq!(store.reads(), (1, 4), "the page that has a session beside its guard");
    owner.get("/out").await;
    store.reads();
    assert_eq!(thief.get("/shown").await.body, "Some(7)", "the replica does not know yet");
    for path in GUARDED {
        assert_eq!(thief.get(path).await.status, 401, "{path}");
    }
    assert_eq!(thief.get("/exact").await.body, "None", "a route that says so");
    let mut post = Request::new(Body::empty());
    (*post.method_mut(), *post.uri_mut()) = (Method::POST, "/shown".parse().unwrap());
    assert_eq!(thief.send(post).await.body, "None", "a method that may change something");
}

#[tokio::test]
async fn a_replica_serves_while_the_primary_fails_and_nobody_is_told_more_than_he_may_know() {
    let old = Old::new().await;
    old.store.primary.fail(Kind::Unavailable);
    assert_eq!(old.visitor.visit(async |session| n(&session).await).await, Some(1));
    // What was edited on a replica's word is not there, and the client is told.
    let answer = old.visitor.try_visit(async |session| session.increment("n", 1)).await;
    assert_eq!(answer.page.status, 503);
    for if_unavailable in [IfUnavailable::Refuse, IfUnavailable::Anonymous] {
        let guarded = async |mut request: axum::extract::Request| {
            request.extensions_mut().insert(if_unavailable);
            let session = session_of(&request).await?;
            session.increment("n", 1)?;
            let (mut parts, _) = request.into_parts();
            let guard = LoggedIn::<u64>::from_request_parts(&mut parts, &()).await;
            let denied = guard.map(|user| *user).unwrap_err();
            assert!(denied.error().is_unavailable(), "{denied:?}");
            assert_eq!(session.status(), Status::Unavailable);
            assert_eq!(session.user::<u64>()?, None);
            // As if it had not mattered.
            Ok::<_, Error>(())
        };
        let answer = old.visitor.request(guarded).await;
        assert_eq!(answer.page.status, 503, "an edit was lost");
    }
    let out = old.visitor.try_visit(async |session| session.log_out().await).await;
    assert_eq!(out.page.status, 503);
    assert_eq!(old.visitor.cookie(), None, "what can be done for the visitor is done");
    old.store.primary.heal();
    old.place.layer.close().await.unwrap();
    assert!(old.place.events.take().contains(&Event::LoggedOut));
}

#[tokio::test]
async fn a_store_without_replicas_cannot_be_read_from_them() {
    let memory = || RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
    let redis = RedisServer::start();
    let single = RedisSessionLayer::connect(&redis.url(), KeyRing::random().unwrap()).await.unwrap();
    for layer in [memory(), single] {
        let error = layer.read_from(BEHIND).check().unwrap_err();
        let text = error.to_string();
        assert!(error.is_config() && text.contains("redis-cluster://") && text.contains("ReadFrom::Primary"), "{text}");
    }
    let wrong = ReadFrom::Replicas { behind: Duration::from_millis(100) };
    let error = layer(&Behind::new()).read_from(wrong).check().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("behind: Duration"), "{error}");
    assert!(memory().read_from(ReadFrom::Primary).check().is_ok());
}

#[tokio::test]
async fn a_token_of_a_form_is_good_on_whatever_server_its_page_was_made() {
    let old = Old::new().await;
    let token = old.visitor.visit(async |session| Ok(CsrfToken::of(&session)?.to_string())).await;
    old.forgets();
    let sent = old.visitor.request(async |mut request| {
        *request.method_mut() = Method::POST;
        let session = session_of(&request).await?;
        CsrfToken::of(&session)?.verify(&token)
    });
    assert_eq!(sent.await.page.status, 200);
}

/// Two processes of one application, on a primary with one replica behind Sentinels.
async fn two(sentinels: &Sentinels, behind: Duration) -> [RedisSessionLayer; 2] {
    let keys = KeyRing::random().unwrap();
    let mut layers = Vec::new();
    for _ in 0..2 {
        let store = patient(&sentinels.url(), Duration::from_secs(10)).await;
        let layer = RedisSessionLayer::with_store(store, keys.clone()).read_from(ReadFrom::Replicas { behind });
        layers.push(layer.check().unwrap());
    }
    layers.try_into().unwrap()
}

fn replica(sentinels: &Sentinels) -> &RedisServer {
    let primary = sentinels.primary().port();
    sentinels.servers().iter().find(|server| server.port() != primary).unwrap()
}

fn loads(server: &RedisServer) -> u64 {
    server.command_count("HGETALL")
}

/// Waits until the replica answers for this visitor in both processes.
async fn replica_answers(sentinels: &Sentinels, visitors: &[Visitor]) {
    let start = Instant::now();
    for visitor in visitors {
        loop {
            let before = loads(replica(sentinels));
            visitor.visit(async |session| n(&session).await).await;
            if loads(replica(sentinels)) > before {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the replica does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_sees_his_own_edits_in_every_process_while_the_replica_is_held_up() {
    let sentinels = Sentinels::options().replicas(1).start();
    let behind = Duration::from_secs(1);
    let layers = two(&sentinels, behind).await;
    let place = Place::around(layers[0].clone(), None);
    let first = place.visitor();
    let processes = [first.clone(), first.before(&layers[1])];
    first.visit(async |session| session.increment("n", 1)).await;
    replica_answers(&sentinels, &processes).await;
    replica(&sentinels).run(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    let (mut written, mut reads, mut old, mut of_others) = (1, 0, 0, 0);
    for _ in 0..2 {
        processes[0].visit(async |session| session.increment("n", 1)).await;
        written += 1;
        let begun = Instant::now();
        // Until the browser has forgotten that there was an edit, and longer.
        while begun.elapsed() < behind * 3 {
            let visitor = &processes[reads % 2];
            old += u64::from(visitor.visit(async |session| n(&session).await).await != Some(written));
            // Who has the same session, and was not told by the same browser.
            let other = visitor.copy();
            other.browser.jar().forget(MARK);
            of_others += u64::from(other.visit(async |session| n(&session).await).await != Some(written));
            reads += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    println!("of {reads} reads {old} were older than the visitor's own edits; without the cookie {of_others} are");
    assert_eq!(old, 0);
    assert!(of_others > 0, "what else is shown?");
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_a_logout_is_passed_by_no_guard_while_the_replica_is_held_up() {
    let sentinels = Sentinels::options().replicas(1).start();
    let [here, there] = two(&sentinels, Duration::from_secs(2)).await;
    let place = Place::around(here.clone(), None);
    let owner = place.visitor();
    owner.visit(async |session| session.log_in(7).await).await;
    let thief = pages(there.clone());
    thief.jar().clone_from(&owner.browser.jar());
    thief.jar().forget(MARK);
    replica_answers(&sentinels, &[owner.copy().before(&there)]).await;
    replica(&sentinels).run(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    owner.visit(async |session| session.log_out().await).await;
    let (mut passed, mut shown, mut asked, begun) = (0, 0, 0, Instant::now());
    while begun.elapsed() < Duration::from_secs(4) {
        for path in GUARDED {
            asked += 1;
            passed += u32::from(thief.get(path).await.status == 200);
        }
        let page = thief.get("/shown").await;
        shown += u32::from(page.body == "Some(7)");
        assert!(page.body == "None" || begun.elapsed() < Duration::from_secs(3), "for longer than it may");
    }
    println!("after a logout {passed} of {asked} guarded requests passed, and {shown} others were shown the login");
    assert!(passed == 0 && shown > 0);
    assert_eq!(thief.get("/shown").await.body, "None");
    let status = place.visitor().before(&there);
    status.browser.jar().clone_from(&thief.jar());
    assert_eq!(status.visit(async |session| Ok(session.status())).await, Status::Ended(Reason::LoggedOut));
}

/// What a read-heavy hour in small costs the primary.
#[tokio::test(flavor = "multi_thread")]
async fn reads_leave_the_primary() {
    let sentinels = Sentinels::start();
    let mut of_primary = Vec::new();
    for read_from in [ReadFrom::Primary, BEHIND] {
        let store = patient(&sentinels.url(), Duration::from_secs(10)).await;
        let layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap()).read_from(read_from);
        let place = Place::around(layer, None);
        let visitors: Vec<_> = (0..50).map(|_| place.visitor()).collect();
        for visitor in &visitors {
            visitor.visit(async |session| session.increment("n", 1)).await;
        }
        if read_from != ReadFrom::Primary {
            replica_answers(&sentinels, &visitors).await;
        }
        sentinels.servers().iter().for_each(RedisServer::reset_stats);
        // Each visitor comes every ten seconds, and every twentieth time he changes something.
        for nth in 1..=20 {
            for (visitor, number) in visitors.iter().zip(0..) {
                match (nth + number) % 20 {
                    0 => visitor.visit(async |session| session.increment("n", 1)).await,
                    _ => assert!(visitor.visit(async |session| n(&session).await).await.is_some()),
                }
                visitor.browser.jar().advance(Duration::from_secs(10));
            }
        }
        let primary = sentinels.primary();
        let replicas = sentinels.servers().iter().filter(|server| server.port() != primary.port());
        let (loads_here, elsewhere) = (loads(primary), replicas.map(loads).sum::<u64>());
        println!(
            "{read_from:?}: of 1000 requests, 950 of which only read, the primary has {loads_here} HGETALL and {} EVALSHA, \
             its two replicas {elsewhere} HGETALL",
            primary.command_count("EVALSHA"),
        );
        of_primary.push(loads_here);
    }
    // Each write reads there too.
    assert!(of_primary[0] == 1000 && of_primary[1] < 100, "{of_primary:?}");
}
