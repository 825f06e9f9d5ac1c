//! How an application tests its handlers: `cargo test --example testing` runs the tests, `cargo run --example testing`
//! the application, a wish list.

#![allow(clippy::print_stdout)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use redis_session::{Cookie, Error, KeyRing, MemoryStore, RedisSessionLayer, Session};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Wishes {
    list: Vec<String>,
}

async fn show(wishes: Session<Wishes>) -> String {
    format!("You wish for: {}\n", wishes.list.join(", "))
}

/// A list has room for three wishes, however many tabs add to it at once.
async fn add(mut wishes: Session<Wishes>, Path(wish): Path<String>) -> Result<Response, Error> {
    let fits = wishes
        .transaction(move |wishes| {
            let fits = wishes.list.len() < 3;
            if fits {
                wishes.list.push(wish.clone());
            }
            Ok::<_, Error>(fits)
        })
        .await?;
    Ok(if fits { "Noted.\n".into_response() } else { (StatusCode::CONFLICT, "Three are enough.\n").into_response() })
}

async fn forget(session: Session) -> Result<(), Error> {
    session.destroy().await
}

fn routes() -> Router {
    Router::new().route("/", get(show)).route("/add/{wish}", post(add)).route("/forget", post(forget))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
    let app = routes().layer(sessions.cookie(Cookie::insecure_for_development()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let address = listener.local_addr()?;
    println!("curl -c jar -b jar -X POST http://{address}/add/kite && curl -b jar http://{address}/");
    Ok(axum::serve(listener, app).await?)
}

/// A handler is a function: called with a session that needs neither layer nor store.
#[cfg(test)]
mod as_functions {
    use super::*;

    #[tokio::test]
    async fn a_wish_is_noted() {
        let session = Session::detached(Wishes { list: vec!["kite".into()] }).await.unwrap();
        let answer = add(session.view().unwrap(), Path("boat".into())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        // What the handler did is read from the session.
        assert_eq!(session.view::<Wishes>().unwrap().list, ["kite", "boat"]);
    }

    #[tokio::test]
    async fn a_fourth_wish_is_refused() {
        let full = Wishes { list: ["kite", "boat", "drum"].map(str::to_owned).into() };
        let session = Session::detached(full.clone()).await.unwrap();
        let answer = add(session.view().unwrap(), Path("horse".into())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::CONFLICT);
        assert_eq!(*session.view::<Wishes>().unwrap(), full);
    }
}

/// Through the router, with its extractors and middleware: the session is attached to the request.
#[cfg(test)]
mod through_the_router {
    use axum::body::Body;
    use axum::http::Request;
    use redis_session::Status;
    use tower::ServiceExt;

    use super::*;

    async fn call(session: &Session, request: Request<Body>) -> StatusCode {
        let mut request = request;
        session.attach(&mut request);
        routes().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn a_wish_is_taken_from_the_path() {
        let session = Session::detached(Wishes::default()).await.unwrap();
        let status = call(&session, Request::post("/add/a%20kite").body(Body::empty()).unwrap()).await;
        assert_eq!((status, session.get("list").unwrap()), (StatusCode::OK, Some(vec!["a kite".to_owned()])));
    }

    #[tokio::test]
    async fn who_wants_to_be_forgotten_has_no_session_afterwards() {
        let session = Session::detached(Wishes::default()).await.unwrap();
        let status = call(&session, Request::post("/forget").body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(matches!(session.status(), Status::Ended(_)));
    }
}

/// Through the whole layer: cookies, expiry and parallel requests, with a browser's cookie jar and a clock of one's own.
#[cfg(test)]
mod through_the_layer {
    use std::time::Duration;

    use redis_session::Clock;
    use redis_session_testkit::Browser;

    use super::*;

    fn browser(clock: &Clock) -> Browser<Router> {
        let store = MemoryStore::new().clock(clock.clone());
        Browser::new(routes().layer(RedisSessionLayer::with_store(store, KeyRing::random().unwrap())))
    }

    #[tokio::test]
    async fn each_visitor_has_a_list() {
        let visitor = browser(&Clock::manual());
        let other = visitor.stranger();
        visitor.post_form("/add/kite", &[]).await;
        assert_eq!(visitor.get("/").await.body, "You wish for: kite\n");
        assert_eq!(other.get("/").await.body, "You wish for: \n");
        // Who has nothing to keep gets no cookie.
        assert_eq!(other.cookie("__Host-id"), None);
    }

    #[tokio::test]
    async fn of_four_tabs_at_once_two_find_room() {
        let visitor = browser(&Clock::manual());
        visitor.post_form("/add/kite", &[]).await;
        let add = |path| visitor.post_form(path, &[]);
        let pages = tokio::join!(add("/add/1"), add("/add/2"), add("/add/3"), add("/add/4"));
        let statuses = [pages.0.status, pages.1.status, pages.2.status, pages.3.status];
        assert_eq!(statuses.iter().filter(|status| **status == StatusCode::OK).count(), 2);
    }

    #[tokio::test]
    async fn an_idle_list_is_gone_after_half_an_hour_and_a_minute() {
        let clock = Clock::manual();
        let visitor = browser(&clock);
        visitor.post_form("/add/kite", &[]).await;
        clock.advance(Duration::from_secs(29 * 60));
        assert_eq!(visitor.get("/").await.body, "You wish for: kite\n");
        clock.advance(Duration::from_secs(32 * 60));
        assert_eq!(visitor.get("/").await.body, "You wish for: \n");
    }
}
