//! How an application tests its handlers: as functions, in a router, and with a browser. `cargo test --example testing`.

use axum::Router;
use axum::routing::{get, post};
use redis_session::{Cookie, Error, KeyRing, MemoryStore, RedisSessionLayer, Session};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    name: Option<String>,
    coupons: u32,
}

async fn greet(visitor: Session<Visitor>) -> String {
    format!("Hello, {}!", visitor.name.as_deref().unwrap_or("stranger"))
}

async fn redeem(mut visitor: Session<Visitor>) -> Result<&'static str, Error> {
    let redeem = |visitor: &mut Visitor| {
        let had_one = visitor.coupons > 0;
        visitor.coupons -= u32::from(had_one);
        Ok::<_, Error>(had_one)
    };
    Ok(if visitor.transaction(redeem).await? { "redeemed" } else { "none left" })
}

fn routes() -> Router {
    Router::new().route("/", get(greet)).route("/redeem", post(redeem))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
    let app = routes().layer(sessions.cookie(Cookie::insecure_for_development()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    eprintln!("http://{} (its tests: cargo test --example testing)", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use redis_session_testkit::Browser;
    use tower::ServiceExt;

    use super::*;

    fn ada() -> Visitor {
        Visitor { name: Some("Ada".to_owned()), coupons: 1 }
    }

    /// A handler is a function: give it a session, call it, look at the session.
    #[tokio::test]
    async fn a_coupon_is_redeemed_once() -> Result<(), Error> {
        let session = Session::detached(ada()).await?;
        assert_eq!(redeem(session.view()?).await?, "redeemed");
        assert_eq!(redeem(session.view()?).await?, "none left");
        assert_eq!(*session.view::<Visitor>()?, Visitor { coupons: 0, ..ada() });
        Ok(())
    }

    /// With routes, extractors and middleware, and still without a cookie.
    #[tokio::test]
    async fn a_visitor_is_greeted_by_name() -> Result<(), Box<dyn std::error::Error>> {
        let mut request = Request::get("/").body(Body::empty())?;
        Session::detached(ada()).await?.attach(&mut request);
        let response = routes().oneshot(request).await?;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(axum::body::to_bytes(response.into_body(), 1000).await?, "Hello, Ada!");
        Ok(())
    }

    /// The whole way, cookies included: what a browser would see.
    #[tokio::test]
    async fn a_stranger_has_no_coupon_and_gets_no_cookie() -> Result<(), Error> {
        let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
        let browser = Browser::new(routes().layer(sessions));
        assert_eq!(browser.get("/").await.body, "Hello, stranger!");
        assert!(browser.jar().cookies().is_empty());
        assert_eq!(browser.post_form("/redeem", &[]).await.body, "none left");
        Ok(())
    }
}
