//! Rotations of one session at the same moment: one wins, nobody is logged out by it, and answers may overtake each other.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::Request;
use axum::routing::get;
use redis_session::{Error, Session};
use redis_session_testkit::{Browser, Page};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::stores::{Kept, Place};
use super::{Visitor, paths, setting};

const ROTATIONS: usize = 100;
const ROUNDS: usize = 200;
const VISITS: usize = 20;

/// A shop with a login. Its requests under `/together` load their session and wait for the others before they go on.
fn app(place: &Place, together: usize) -> Router {
    let barrier = Arc::new(Barrier::new(together));
    let log_in = async |user: String, session: Session| {
        session.insert("user", &user)?;
        session.increment("logins", 1)?;
        session.rotate().await
    };
    let log_in_together = async move |Path(user): Path<String>, session: Session| {
        barrier.wait().await;
        log_in(user, session).await
    };
    Router::new()
        .route(
            "/log-in/{user}",
            get(async move |Path(user): Path<String>, session: Session| log_in(user, session).await),
        )
        .route("/together/log-in/{user}", get(log_in_together))
        .route(
            "/user",
            get(async |session: Session| Ok::<_, Error>(session.get::<String>("user")?.unwrap_or_default())),
        )
        .merge(paths())
        .layer(place.layer.clone())
}

/// Sends requests at once with the cookies as they are now; the answers are under way.
async fn all_at_once(browser: &Browser<Router>, paths: impl IntoIterator<Item = String>) -> Vec<Page> {
    let mut requests = JoinSet::new();
    for path in paths {
        let browser = browser.clone();
        requests.spawn(async move { browser.ask(Request::get(path).body(Body::empty()).unwrap()).await });
    }
    requests.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn r35_100_parallel_rotations_leave_one_living_id_and_all_data() {
    for place in Place::both().await {
        for prefix in ["", "/together"] {
            place.clear();
            let before = place.count();
            let browser = Browser::new(app(&place, ROTATIONS));
            browser.get("/push/7").await;
            let old = browser.copy();
            let paths = (0..ROTATIONS).map(|user| format!("{prefix}/log-in/{user}"));
            let answers = all_at_once(&browser, paths).await;
            let winners = answers.iter().filter(|page| page.status == 200).count();
            let refused = answers.iter().filter(|page| page.status == 409).count();
            let cookies: Vec<_> = answers.iter().flat_map(Page::set_cookies).collect();
            let removals = cookies.iter().filter(|line| line.contains("Max-Age=0")).count();
            for page in &answers {
                browser.receive(page);
            }
            let user = browser.get("/user").await.body;
            println!(
                "{ROTATIONS} parallel rotations on {}: {winners} won, {refused} answered 409, {} cookies, {removals} removals; \
                 {} record",
                place.name,
                cookies.len(),
                place.count() - before,
            );
            assert_eq!((winners, refused, cookies.len(), removals), (1, ROTATIONS - 1, 1, 0));
            assert_eq!(place.count() - before, 1);
            assert_eq!(Visitor::on(&old.get("/read").await), Visitor::default());
            let expected = [("cart", "[7]"), ("logins", "1"), ("user", &format!("{user:?}"))];
            assert_eq!(place.kept().await, Kept::Fields(expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()));
        }
    }
}

/// The seed of a test's choices, from `FIGURES_SEED`, or a new one.
fn dice() -> fastrand::Rng {
    let seed = setting("FIGURES_SEED", fastrand::u64(..));
    println!("FIGURES_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_parallel_logins_of_one_browser_leave_it_with_a_living_session_in_whatever_order_they_answer() {
    let mut dice = dice();
    for place in Place::both().await {
        let (before, browser) = (place.count(), Browser::new(app(&place, 2)));
        let mut living = 0;
        for _ in 0..ROUNDS {
            let browser = browser.stranger();
            browser.get("/push/7").await;
            let prefix = dice.choice(["", "/together"]).unwrap();
            let mut answers =
                all_at_once(&browser, ["ada", "grace"].map(|user| format!("{prefix}/log-in/{user}"))).await;
            dice.shuffle(&mut answers);
            for page in &answers {
                browser.receive(page);
            }
            let is_in = ["ada", "grace"].contains(&&*browser.get("/user").await.body);
            living += usize::from(is_in && Visitor::on(&browser.get("/read").await).cart == [7]);
        }
        let records = place.count() - before;
        println!("two parallel logins on {}: {living} of {ROUNDS} browsers in, {records} records", place.name);
        assert_eq!((living, records), (ROUNDS, ROUNDS));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_beside_20_visits_with_the_old_cookie_keeps_the_browser_in_whatever_order_they_answer() {
    let mut dice = dice();
    for place in Place::both().await {
        let (before, browser) = (place.count(), Browser::new(app(&place, 1)));
        let (mut living, mut counted, mut cookies, mut failed) = (0, 0, 0, 0);
        for _ in 0..ROUNDS {
            let browser = browser.stranger();
            browser.get("/push/7").await;
            let mut requests = vec!["/log-in/ada".to_owned()];
            requests.extend((0..VISITS).map(|_| dice.choice(["/visit", "/count"]).unwrap().to_owned()));
            dice.shuffle(&mut requests);
            let mut answers = all_at_once(&browser, requests).await;
            dice.shuffle(&mut answers);
            for page in &answers {
                browser.receive(page);
                cookies += page.set_cookies().len();
                failed += usize::from(page.status != 200);
            }
            let visitor = Visitor::on(&browser.get("/read").await);
            living += usize::from(browser.get("/user").await.body == "ada" && visitor.cart == [7]);
            counted += visitor.visits;
        }
        let records = place.count() - before;
        println!(
            "a login beside {VISITS} visits on {}: {living} of {ROUNDS} browsers in, {records} records, {cookies} cookies, \
             {failed} answers not 200, {counted} of {} visits before the login",
            place.name,
            ROUNDS * VISITS,
        );
        assert_eq!((living, records, cookies, failed), (ROUNDS, ROUNDS, ROUNDS, 0));
    }
}
