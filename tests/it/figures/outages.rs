//! Redis forgets its scripts, goes away, is silent, is loading: visitors keep their cookies, and nobody restarts anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use redis_session::{KeyRing, RedisSessionLayer};
use redis_session_testkit::{Action, Browser, HttpBrowser, Page, Proxy, RedisServer};
use tokio::task::JoinSet;

use super::{Visitor, listen, patient_store, setting, shop};

/// The deadline of the store, and what a busy machine may add.
const IN_TIME: Duration = Duration::from_millis(250 + 500);

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_its_scripts_under_load_is_not_noticed() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let redis = RedisServer::start();
    let store = patient_store(&redis.url()).await;
    let origin = listen(shop(RedisSessionLayer::with_store(store, KeyRing::random().unwrap()))).await;
    let mut visitors = JoinSet::new();
    for _ in 0..8 {
        let visitor = HttpBrowser::connect(&origin);
        visitors.spawn(async move {
            let mut visits = 0;
            while !STOP.load(Ordering::Relaxed) {
                for path in ["/visit", "/count", "/rotate"] {
                    assert_eq!(visitor.get(path).await.status, 200);
                }
                visits += 2;
            }
            assert_eq!(Visitor::on(&visitor.get("/read").await).visits, visits);
            visits
        });
    }
    for _ in 0..100 {
        redis.run(&["SCRIPT", "FLUSH"]);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    STOP.store(true, Ordering::Relaxed);
    let visits: u64 = visitors.join_all().await.iter().sum();
    let healed = redis.command_count("EVAL");
    println!("100 SCRIPT FLUSH under load: {visits} writes, all answered 200 and kept; {healed} scripts sent anew");
    assert!(healed > 10, "{healed}");
}

/// How Redis fails, and how it comes back.
struct Outage {
    name: &'static str,
    begin: fn(&RedisServer, &Proxy),
    end: fn(&RedisServer, &Proxy),
}

const OUTAGES: [Outage; 3] = [
    Outage { name: "killed", begin: |redis, _| redis.kill(), end: |redis, _| redis.restart() },
    Outage { name: "silent", begin: |redis, _| redis.pause(), end: |redis, _| redis.resume() },
    Outage {
        name: "loading",
        begin: |_, proxy| proxy.fault(|_| Action::Answer(b"-LOADING Redis is loading\r\n".to_vec())),
        end: |_, proxy| proxy.clear_faults(),
    },
];

/// A page, and whether it came in time.
async fn timed(visitor: &Browser<Router>, path: &str) -> (Page, Duration) {
    let start = Instant::now();
    let page = visitor.get(path).await;
    (page, start.elapsed())
}

/// Each outage lasts `OUTAGE_SECONDS`, 1 by default.
#[tokio::test(flavor = "multi_thread")]
async fn r86_r91_in_an_outage_visitors_get_503_in_time_and_afterwards_their_session_with_the_same_cookie() {
    let duration = Duration::from_secs_f64(setting("OUTAGE_SECONDS", 1.0));
    for Outage { name, begin, end } in OUTAGES {
        // It keeps its data, so that what is missing afterwards is not its fault.
        let redis = RedisServer::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]);
        let proxy = Proxy::start(redis.address());
        let layer = RedisSessionLayer::connect(&proxy.url(), KeyRing::random().unwrap()).await.unwrap();
        let visitor = Browser::new(shop(layer));
        visitor.get("/push/7").await;
        let cookie = visitor.cookie("__Host-id");

        begin(&redis, &proxy);
        let (over, mut answers, mut slowest) = (Instant::now() + duration, 0, Duration::ZERO);
        while Instant::now() < over {
            for path in ["/read", "/visit", "/rotate", "/count"] {
                let (page, time) = timed(&visitor, path).await;
                assert_eq!((page.status.as_u16(), page.set_cookies().len()), (503, 0), "{name} {path}");
                assert_eq!((page.header("retry-after").as_deref(), page.body.as_str()), (Some("1"), ""));
                assert!(time < IN_TIME, "{name} {path} took {time:?}");
                (answers, slowest) = (answers + 1, slowest.max(time));
            }
            let (page, time) = timed(&visitor, "/untouched").await;
            assert_eq!((page.status.as_u16(), page.body.as_str()), (200, "hello"));
            slowest = slowest.max(time);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        end(&redis, &proxy);
        let back = Instant::now();
        let recovered = loop {
            let page = visitor.get("/read").await;
            if page.status == 200 {
                break page;
            }
            assert!(back.elapsed() < Duration::from_secs(5), "{name}: no recovery");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        println!(
            "Redis {name} for {duration:?}: {answers} answers 503, the slowest after {slowest:?}; back after {:?}",
            back.elapsed()
        );
        assert_eq!(visitor.cookie("__Host-id"), cookie);
        assert_eq!(Visitor::on(&recovered), Visitor { visits: 0, cart: vec![7] });
        assert_eq!(visitor.get("/visit").await.status, 200);
        assert_eq!(Visitor::on(&visitor.get("/read").await).visits, 1);
    }
}
