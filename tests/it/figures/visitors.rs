//! Many visitors: those without a session leave nothing behind, and those with one see their own only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Path;
use axum::http::{Request, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{BoxError, Router};
use redis_session::{KeyRing, RedisSessionLayer, Session};
use redis_session_testkit::{Browser, HttpBrowser, RedisServer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::{Service, ServiceExt};

use super::{patient_store, shop};

const USERS: usize = 1000;
const ROUNDS: usize = 5;
const AT_ONCE: usize = 32;

#[tokio::test]
async fn r31_r39_visits_and_logouts_without_a_session_leave_no_key_and_no_cookie() {
    let redis = RedisServer::start();
    let store = patient_store(&redis.url()).await;
    let mut app = shop(RedisSessionLayer::with_store(store, KeyRing::random().unwrap()));
    for (path, visits) in [("/read", 10_000), ("/destroy", 1000)] {
        redis.reset_stats();
        let mut cookies = 0;
        for _ in 0..visits {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = ServiceExt::<Request<Body>>::ready(&mut app).await.unwrap().call(request).await.unwrap();
            assert_eq!(response.status(), 200);
            cookies += usize::from(response.headers().contains_key("set-cookie"));
        }
        let (keys, mut commands) = (redis.run(&["DBSIZE"]).int(), redis.command_counts());
        commands.retain(|name, _| !["TIME", "DBSIZE"].contains(&&**name));
        println!("{visits} anonymous visits of {path}: {keys} keys, {cookies} Set-Cookie, commands {commands:?}");
        assert!(keys == 0 && cookies == 0 && commands.is_empty());
    }
}

/// Each user enters under a number of his own, and can ask for it later.
fn who(layer: RedisSessionLayer) -> Router {
    let enter = async |Path(user): Path<usize>, session: Session| session.insert("user", &user);
    let user = async |session: Session| session.get::<usize>("user").map(|user| format!("{user:?}"));
    Router::new().route("/enter/{user}", get(enter)).route("/user", get(user)).layer(layer)
}

/// All users enter, and then ask who they are, in rounds of another order each. Answers how many were told so, and how
/// many were taken for somebody else.
async fn told<A>(users: &[Browser<A>]) -> (usize, usize)
where
    A: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let (mut right, mut wrong) = (0, 0);
    let mut order: Vec<usize> = (0..users.len()).collect();
    for round in 0..=ROUNDS {
        fastrand::shuffle(&mut order);
        let (mut requests, few) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
        for &number in &order {
            let (user, few) = (users[number].clone(), few.clone());
            let path = if round == 0 { format!("/enter/{number}") } else { "/user".to_owned() };
            requests.spawn(async move {
                let _place = few.acquire().await.unwrap();
                (number, user.get(&path).await)
            });
        }
        for (number, page) in requests.join_all().await {
            assert_eq!((page.status.as_u16(), page.set_cookies().len()), (200, usize::from(round == 0)));
            let is_right = page.body == format!("Some({number})");
            right += usize::from(round > 0 && is_right);
            wrong += usize::from(round > 0 && !is_right);
        }
    }
    (right, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r49_1000_users_on_shared_connections_and_cloned_services_see_their_own_sessions_only() {
    let redis = RedisServer::start();
    let store = patient_store(&redis.url()).await;
    let app = who(RedisSessionLayer::with_store(store, KeyRing::random().unwrap()));
    let connections = Arc::new(AtomicUsize::new(0));
    let opened = connections.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let counted = listener.tap_io(move |_| {
        opened.fetch_add(1, Ordering::Relaxed);
    });
    tokio::spawn(axum::serve(counted, app.clone()).into_future());

    // Strangers share the first one's connections, or clone its service.
    let over_http = HttpBrowser::connect(&origin);
    let (right, wrong) = told(&(0..USERS).map(|_| over_http.stranger()).collect::<Vec<_>>()).await;
    let connections = connections.load(Ordering::Relaxed);
    println!("{USERS} users over {connections} keep-alive connections: {right} right answers, {wrong} cross-reads");
    assert_eq!((right, wrong), (ROUNDS * USERS, 0));
    assert!(connections < USERS / 2, "they are not shared: {connections}");

    let in_process = Browser::new(app);
    let (right, wrong) = told(&(0..USERS).map(|_| in_process.stranger()).collect::<Vec<_>>()).await;
    println!("{USERS} users on clones of one service: {right} right answers, {wrong} cross-reads");
    assert_eq!((right, wrong), (ROUNDS * USERS, 0));
}
