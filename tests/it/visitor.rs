//! Visitors whose every visit brings its own handler, before either store.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use redis_session::{Clock, Error, KeyRing, MemoryStore, RedisSessionLayer, Session};
use redis_session_testkit::{Browser, Page, RedisServer};
use tower::{Layer, ServiceExt, service_fn};

use crate::watched::Seen;

/// An application's sessions, in memory or on a Redis of their own.
pub(crate) struct Place {
    pub(crate) layer: RedisSessionLayer,
    pub(crate) events: Seen,
    /// The store's clock, if it is in memory.
    clock: Clock,
    /// `None`: in memory.
    pub(crate) redis: Option<RedisServer>,
}

/// Runs a test on either store.
pub(crate) async fn on_both_stores(test: impl AsyncFn(Place)) {
    eprintln!("in memory:");
    test(Place::in_memory()).await;
    eprintln!("on Redis:");
    test(Place::on_redis().await).await;
}

impl Place {
    pub(crate) fn in_memory() -> Self {
        let clock = Clock::manual();
        let store = MemoryStore::new().clock(clock.clone());
        let layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
        Self { clock, ..Self::around(layer, None) }
    }

    pub(crate) async fn on_redis() -> Self {
        let redis = RedisServer::start();
        let layer = RedisSessionLayer::connect(&redis.url(), KeyRing::random().unwrap()).await.unwrap();
        Self::around(layer, Some(redis))
    }

    pub(crate) fn around(layer: RedisSessionLayer, redis: Option<RedisServer>) -> Self {
        let events = Seen::default();
        Self { layer: layer.observer(events.clone()), events, clock: Clock::system(), redis }
    }

    /// Lets time pass for all sessions.
    pub(crate) fn pass(&self, time: Duration) {
        match &self.redis {
            None => self.clock.advance(time),
            // Redis has no clock that a test could move, so all that it keeps is made older.
            Some(redis) => make_older(redis, i64::try_from(time.as_millis()).unwrap()),
        }
    }

    pub(crate) fn visitor(&self) -> Visitor {
        Visitor { layer: self.layer.clone(), browser: Browser::new(()), origin: "https://localhost" }
    }
}

/// Moves the points in time of all records, tombstones and lists, and when Redis drops them, by milliseconds into the
/// past.
pub(crate) fn make_older(redis: &RedisServer, by: i64) {
    for key in redis.run(&["KEYS", "sess:*"]).texts() {
        // What is past its time meanwhile is gone for Redis too.
        let drops = redis.run(&["PEXPIRETIME", &key]).int();
        match redis.run(&["TYPE", &key]).text().as_str() {
            "zset" => make_list_older(redis, &key, by),
            _ => make_record_older(redis, &key, by),
        }
        if drops > 0 {
            redis.run(&["PEXPIREAT", &key, &(drops - by).to_string()]);
        }
    }
}

fn make_record_older(redis: &RedisServer, key: &str, by: i64) {
    let earlier = |word: &str| word.parse::<i64>().map_or(word.to_owned(), |at| (at - by).to_string());
    for (name, value) in redis.run(&["HGETALL", key]).map().into_iter().filter(|(name, _)| name.starts_with('@')) {
        let times: &[usize] = match name.as_str() {
            "@" => &[4, 8],
            "@user" => &[0, 1],
            "@ended" => &[1],
            _ => continue,
        };
        let words = value.split(' ').enumerate();
        let words: Vec<_> =
            words.map(|(at, word)| if times.contains(&at) { earlier(word) } else { word.into() }).collect();
        redis.run(&["HSET", key, &name, &words.join(" ")]);
    }
}

fn make_list_older(redis: &RedisServer, key: &str, by: i64) {
    let list = redis.run(&["ZRANGE", key, "0", "-1", "WITHSCORES"]).texts();
    for entry in list.chunks(2) {
        let score: i64 = entry[1].parse().unwrap();
        let earlier = (score.abs() - by) * score.signum();
        redis.run(&["ZADD", key, &earlier.to_string(), &entry[0]]);
    }
}

/// A visitor's browser. Clones share the cookies.
#[derive(Clone)]
pub(crate) struct Visitor {
    layer: RedisSessionLayer,
    pub(crate) browser: Browser<()>,
    /// Where it takes the application to be.
    origin: &'static str,
}

/// What a visit came to.
pub(crate) struct Answer<V> {
    pub(crate) page: Page,
    /// The library's error, if it is what was answered.
    pub(crate) error: Option<Error>,
    /// What the handler returned, if it was asked and had no error.
    pub(crate) value: Option<V>,
}

impl Visitor {
    /// The same visitor before another deployment of the application.
    pub(crate) fn before(&self, layer: &RedisSessionLayer) -> Self {
        Self { layer: layer.clone(), ..self.clone() }
    }

    /// The same visitor before the application at another place: `https://shop.example`.
    pub(crate) fn at(&self, origin: &'static str) -> Self {
        Self { origin, ..self.clone() }
    }

    /// Who has the same cookies now, and gets no newer ones.
    pub(crate) fn copy(&self) -> Self {
        Self { browser: self.browser.copy(), ..self.clone() }
    }

    pub(crate) fn cookie(&self) -> Option<String> {
        self.browser.cookie("__Host-id")
    }

    /// One request whose handler must succeed, and its response too.
    pub(crate) async fn visit<V>(&self, handler: impl AsyncFnOnce(Session) -> Result<V, Error>) -> V {
        let answer = self.try_visit(handler).await;
        assert_eq!(answer.page.status, 200, "{:?}", answer.error);
        answer.value.unwrap()
    }

    /// One request.
    pub(crate) async fn try_visit<V>(&self, handler: impl AsyncFnOnce(Session) -> Result<V, Error>) -> Answer<V> {
        let value = RefCell::new(None);
        let answer = self
            .request(async |request| {
                let session = Session::from_extensions(request.extensions()).await?;
                *value.borrow_mut() = Some(handler(session).await?);
                Ok::<_, Error>(())
            })
            .await;
        Answer { page: answer.page, error: answer.error, value: value.into_inner() }
    }

    /// One request whose handler does all by itself.
    pub(crate) async fn request<R: IntoResponse>(&self, handler: impl AsyncFnOnce(Request) -> R) -> Answer<()> {
        let (handler, error) = (Rc::new(RefCell::new(Some(handler))), RefCell::new(None));
        let service = service_fn(|request: Request| {
            let handler = handler.borrow_mut().take().unwrap();
            async { Ok::<_, Infallible>(handler(request).await.into_response()) }
        });
        let service = self.layer.layer(service).map_response(|response: Response| {
            *error.borrow_mut() = response.extensions().get::<Error>().cloned();
            response
        });
        let browser = Browser::new(service).at(self.origin);
        browser.jar().clone_from(&self.browser.jar());
        let page = browser.ask(axum::http::Request::new(axum::body::Body::empty())).await;
        self.browser.receive(&page);
        Answer { page, error: error.into_inner(), value: None }
    }

    /// The fields as they are stored.
    pub(crate) async fn fields(&self) -> Vec<(String, String)> {
        self.visit(async |session| session.fields()).await
    }
}
