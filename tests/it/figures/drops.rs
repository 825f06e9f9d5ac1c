//! Requests that are dropped half-way: the client went away, or a timeout fired.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use axum::{Json, Router};
use redis_session::{Error, Session};
use redis_session_testkit::Browser;
use tower::ServiceExt;

use super::stores::{Kept, Place};
use super::{PATIENT, Visitor};

/// Awaits a future for so many polls, and drops it then. `None`: it was not ready.
async fn polled<F: Future>(future: F, mut polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if polls == 1 => Poll::Ready(None),
        Poll::Pending => {
            polls -= 1;
            Poll::Pending
        }
    })
    .await
}

/// How many tasks this runtime has.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Two fields at once, so that half a write would show.
fn edit(visitor: &mut Session<Visitor>) -> Result<(), Error> {
    visitor.update(|visitor| {
        visitor.visits += 1;
        visitor.cart.push(visitor.visits);
    })
}

fn app(place: &Place) -> Router {
    let edited = async |mut visitor: Session<Visitor>| edit(&mut visitor);
    let saved = async |mut visitor: Session<Visitor>| {
        edit(&mut visitor)?;
        visitor.session().save().await
    };
    let rotated = async |mut visitor: Session<Visitor>| {
        edit(&mut visitor)?;
        visitor.session().rotate().await
    };
    Router::new()
        .route("/edit", get(edited))
        .route("/save", get(saved))
        .route("/rotate", get(rotated))
        .route("/destroy", get(async |session: Session| session.destroy().await))
        .route("/read", get(async |visitor: Session<Visitor>| Json((*visitor).clone())))
        .layer(place.layer.clone())
}

fn fields(visits: u64) -> Kept {
    let cart = serde_json::to_string(&(1..=visits).collect::<Vec<_>>()).unwrap();
    Kept::Fields([("visits".to_owned(), visits.to_string()), ("cart".to_owned(), cart)].into())
}

/// What a request does, whether its visitor has a session before it, and whether his cookie is good for it afterwards.
struct Case {
    path: &'static str,
    old: Kept,
    new: Kept,
    cookie_stays_good: bool,
}

fn table() -> [Case; 5] {
    let case = |path, old, new, cookie_stays_good| Case { path, old, new, cookie_stays_good };
    [
        case("/edit", Kept::Nothing, fields(1), true),
        case("/edit", fields(1), fields(2), true),
        case("/save", fields(1), fields(2), true),
        case("/rotate", fields(1), fields(2), false),
        case("/destroy", fields(1), Kept::Tombstone, false),
    ]
}

#[tokio::test]
async fn r47_a_request_dropped_after_any_of_its_polls_leaves_the_old_state_or_the_new_one_whole() {
    for place in Place::both().await {
        let app = app(&place);
        for Case { path, old, new, cookie_stays_good } in table() {
            let (mut olds, mut news) = (0, 0);
            for polls in 1.. {
                place.clear();
                let visitor = Browser::new(app.clone());
                if old != Kept::Nothing {
                    visitor.get("/edit").await;
                }
                let cookie = visitor.cookie("__Host-id");
                let line = cookie.as_ref().map(|value| format!("__Host-id={value}"));
                let request =
                    Request::get(path).header("cookie", line.unwrap_or_default()).body(Body::empty()).unwrap();
                let before = tasks();
                let answer = polled(app.clone().oneshot(request), polls).await;
                let dropped = Instant::now();
                while tasks() > before {
                    assert!(dropped.elapsed() < PATIENT, "what was begun does not end");
                    tokio::task::yield_now().await;
                }
                let kept = place.kept().await;
                match &kept {
                    kept if *kept == old && news == 0 => olds += 1,
                    kept if *kept == new => news += 1,
                    other => panic!("{} {path}, dropped after {polls} polls: {other:?}", place.name),
                }
                let is_good = !Visitor::on(&visitor.get("/read").await).cart.is_empty();
                assert_eq!(is_good, cookie.is_some() && (kept == old || cookie_stays_good), "{path} {polls}");
                if answer.is_some() {
                    assert_eq!(kept, new);
                    break;
                }
            }
            println!(
                "{path} on {}, dropped after each poll: {olds} times the old state, {news} times the new",
                place.name
            );
            // The last of the new ones is that of a request that was not dropped.
            assert!(news > 1);
            // From the first poll of the write on, it is made: the old state is that of the polls of the load, two of
            // them where the store lets others in twice.
            match place.name {
                _ if old == Kept::Nothing => assert_eq!(olds, 0),
                "memory" => assert_eq!(olds, 2),
                _ => assert!(olds > 0),
            }
        }
    }
}
