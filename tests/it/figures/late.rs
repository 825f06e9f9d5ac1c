//! A request that loaded its session before another one ended or rotated it, and writes afterwards: over HTTP, round by
//! round. (The same at the store is in its crate.)

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use redis_session::{Error, Expiry, KeyRing, RedisSessionLayer, Session};
use redis_session_testkit::{HttpBrowser, Page, RedisServer};
use tokio::sync::Barrier;

use super::{Visitor, listen, paths, patient_store};

const ROUNDS: u64 = 500;

/// What the late request has to write.
#[derive(Clone, Copy, Debug)]
enum Late {
    Data,
    Touch,
    Both,
}

const ALL: [Late; 3] = [Late::Data, Late::Touch, Late::Both];

impl Late {
    fn touches(self) -> bool {
        matches!(self, Self::Touch | Self::Both)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Data | Self::Both => "/late/edit",
            Self::Touch => "/late/read",
        }
    }
}

/// A server and its Redis. Its late requests stop twice: when they have loaded their session, and before they go on.
struct Shop {
    redis: RedisServer,
    browser: HttpBrowser,
    gate: Arc<Barrier>,
}

impl Shop {
    async fn open(late: Late) -> Self {
        let (redis, gate) = (RedisServer::start(), Arc::new(Barrier::new(2)));
        let every = if late.touches() { Duration::ZERO } else { Duration::from_secs(60) };
        let layer = RedisSessionLayer::with_store(patient_store(&redis.url()).await, KeyRing::random().unwrap())
            .expiry(Expiry::default().touch_every(every));
        let stop = gate.clone();
        let write = async move |Path(what): Path<String>, mut visitor: Session<Visitor>| {
            stop.wait().await;
            stop.wait().await;
            if what == "edit" {
                visitor.update(|visitor| visitor.cart.push(1))?;
                visitor.session().increment("visits", 1)?;
            }
            Ok::<_, Error>(())
        };
        let app = Router::new().route("/late/{what}", get(write)).merge(paths()).layer(layer);
        Self { redis, browser: HttpBrowser::connect(&listen(app).await), gate }
    }

    /// A visitor with a session of his own, the only one in Redis.
    async fn visitor(&self) -> HttpBrowser {
        self.redis.run(&["FLUSHALL"]);
        let visitor = self.browser.stranger();
        visitor.get("/push/0").await;
        visitor
    }

    /// What the late request answers if something else happens while it waits.
    async fn late(&self, visitor: &HttpBrowser, late: Late, meanwhile: impl Future<Output = ()>) -> Page {
        let page = async {
            let request = axum::http::Request::get(late.path()).body(Default::default()).unwrap();
            visitor.ask(request).await
        };
        let other = async {
            self.gate.wait().await;
            meanwhile.await;
            self.gate.wait().await;
        };
        tokio::join!(page, other).0
    }

    /// All that Redis has for the session, when it goes, and how many writes there were so far: a touch in the same
    /// millisecond would not show otherwise.
    fn record(&self) -> (BTreeMap<String, String>, i64, u64) {
        let keys = self.redis.run(&["KEYS", "*"]).texts();
        let [key] = &keys[..] else { panic!("{keys:?}") };
        let hash = self.redis.run(&["HGETALL", key]).map();
        let writes = ["HSET", "HDEL", "HINCRBY", "DEL", "PEXPIRE", "PEXPIREAT"];
        let counts = self.redis.command_counts();
        let writes = writes.iter().filter_map(|name| counts.get(*name)).sum();
        (hash, self.redis.run(&["PEXPIRETIME", key]).int(), writes)
    }
}

#[tokio::test]
async fn without_a_rival_each_late_request_writes() {
    for late in ALL {
        let shop = Shop::open(late).await;
        let visitor = shop.visitor().await;
        let before = shop.record();
        let page = shop.late(&visitor, late, async {}).await;
        assert_eq!(page.status, 200);
        assert_ne!(shop.record(), before, "{late:?}");
    }
}

#[tokio::test]
async fn r38_a_late_write_does_not_undo_a_logout_in_500_rounds() {
    nothing_is_undone("/destroy", &Visitor::default()).await;
}

#[tokio::test]
async fn r38_a_late_write_does_not_undo_a_rotation_in_500_rounds() {
    nothing_is_undone("/rotate", &Visitor { visits: 0, cart: vec![0] }).await;
}

/// Late requests of all kinds against a rival that leaves its visitor with this state.
async fn nothing_is_undone(rival: &str, left: &Visitor) {
    for late in ALL {
        let shop = Shop::open(late).await;
        let (mut revived, mut written, mut failed, mut cookies) = (0, 0, 0, 0);
        for _ in 0..ROUNDS {
            let visitor = shop.visitor().await;
            let (before, record) = (visitor.copy(), OnceCell::new());
            let meanwhile = async {
                assert_eq!(visitor.get(rival).await.status, 200);
                record.set(shop.record()).unwrap();
            };
            let page = shop.late(&before, late, meanwhile).await;
            written += u64::from(record.get() != Some(&shop.record()));
            failed += u64::from(page.status.is_server_error());
            cookies += page.set_cookies().len();
            revived += u64::from(Visitor::on(&before.get("/read").await) != Visitor::default());
            // The late answer arrives last.
            visitor.receive(&page);
            assert_eq!(Visitor::on(&visitor.get("/read").await), *left);
        }
        println!(
            "late writer ({late:?}) against {rival} over HTTP, {ROUNDS} rounds: {revived} revived, {written} written, \
             {failed} answers 5xx, {cookies} session cookies"
        );
        assert_eq!((revived, written, failed, cookies), (0, 0, 0, 0));
    }
}
