//! Their `Session` and axum-login's users in an application of many tenants.

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use redis_session::{Event, Refusal, Sessions, Tenant};
use redis_session_interop::tower_sessions::TowerSessionsLayer;
use redis_session_testkit::Browser;
use tower_sessions::Session;

use crate::place::{COOKIE, on_both_stores};

const ACME: &str = "https://acme.example";
const GLOBEX: &str = "https://globex.example";

async fn add(session: Session, Path(item): Path<String>) -> String {
    session.insert(&item, true).await.unwrap();
    session.save().await.unwrap();
    session.id().unwrap().to_string()
}

async fn has(session: Session, Path(item): Path<String>) -> String {
    session.get::<bool>(&item).await.unwrap().unwrap_or_default().to_string()
}

async fn enter(session: Session, Path(user): Path<String>) {
    session.insert("account", &user).await.unwrap();
}

async fn devices(sessions: Sessions) -> String {
    sessions.list("ada").await.unwrap().len().to_string()
}

#[tokio::test]
async fn their_session_is_that_of_the_requests_tenant() {
    on_both_stores(async |place| {
        let layer = place.layer.clone().tenants(|parts| {
            let name = parts.headers.get("host")?.to_str().ok()?.strip_suffix(".example")?;
            Tenant::named(name).ok().filter(|_| ["acme", "globex"].contains(&name))
        });
        let theirs = TowerSessionsLayer::new().user("account", |name| Some(name.as_str()?.to_owned()));
        let app = Router::new()
            .route("/add/{item}", get(add))
            .route("/has/{item}", get(has))
            .route("/enter/{user}", get(enter))
            .route("/devices", get(devices))
            .route("/health", get(async || "well"))
            .layer(theirs)
            .layer(layer);
        let [acme, globex] = [ACME, GLOBEX].map(|origin| Browser::new(app.clone()).at(origin));
        let ids = [acme.get("/add/tea").await.body, globex.get("/add/coffee").await.body];
        assert_ne!(ids[0], ids[1]);
        assert_eq!([acme.get("/has/tea").await.body, acme.get("/has/coffee").await.body], ["true", "false"]);
        assert_eq!([globex.get("/has/tea").await.body, globex.get("/has/coffee").await.body], ["false", "true"]);
        assert_eq!(acme.get("/enter/ada").await.status, 200);
        assert_eq!([acme.get("/devices").await.body, globex.get("/devices").await.body], ["1", "0"]);

        place.events.take();
        let stranger = globex.stranger();
        stranger.set_cookie(COOKIE, &acme.cookie(COOKIE).unwrap());
        assert_eq!(stranger.get("/has/tea").await.body, "false");
        assert_eq!(place.events.take(), [Event::Refused(Refusal::BadSignature)]);
        let unknown = Browser::new(app.clone()).at("https://initech.example");
        assert_eq!(
            (unknown.get("/health").await.status.as_u16(), unknown.get("/has/tea").await.status.as_u16()),
            (200, 500)
        );
    })
    .await;
}
