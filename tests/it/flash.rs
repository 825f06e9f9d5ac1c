//! Messages for the next page, on both stores: shown once, and none lost between tabs.

use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::response::Redirect;
use axum::routing::{get, post};
use http::StatusCode;
use redis_session::{Error, Flash, FlashLevel, KeyRing, RedisSessionLayer, Session, Status};
use redis_session_core::Kind;
use redis_session_testkit::Browser;
use serde::Deserialize;

use crate::visitor::{Place, on_both_stores};
use crate::watched::{Calls, Watched};

type Visitor = Browser<Router>;

#[derive(Deserialize)]
struct Say {
    text: String,
    path: Option<String>,
}

fn app(sessions: RedisSessionLayer) -> Router {
    async fn say(flash: Flash, Query(Say { text, path }): Query<Say>) -> Result<Redirect, Error> {
        let flash = path.map_or(flash.clone(), |path| flash.for_path(&path));
        flash.info(text)?;
        Ok(Redirect::to("/page"))
    }
    async fn show(flash: Flash) -> Result<String, Error> {
        let lines = flash.take()?.into_iter().map(|message| format!("{}: {}", message.level, message.text));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
    Router::new()
        .route("/say", post(say))
        .route("/page", get(show))
        .route("/cart", get(show))
        .route("/broken", get(async |flash: Flash| (StatusCode::BAD_GATEWAY, show(flash).await)))
        .nest("/nested", Router::new().route("/cart", get(show)))
        .route("/begin", post(async |session: Session| session.insert("cart", &["tea"])))
        .layer(sessions)
}

async fn with_session(place: &Place) -> Visitor {
    let visitor = Browser::new(app(place.layer.clone()));
    assert_eq!(visitor.post_form("/begin", &[]).await.status, 200);
    visitor
}

async fn say(visitor: &Visitor, text: &str) {
    assert_eq!(visitor.post_form(&format!("/say?text={text}"), &[]).await.status, 303);
}

async fn say_at(visitor: &Visitor, text: &str, path: &str) {
    assert_eq!(visitor.post_form(&format!("/say?text={text}&path={path}"), &[]).await.status, 303);
}

async fn shown(visitor: &Visitor, path: &str) -> String {
    let page = visitor.get(path).await;
    assert_eq!(page.status, 200);
    page.body
}

#[tokio::test]
async fn a_message_is_shown_once_after_the_redirect_and_begins_a_session_if_need_be() {
    on_both_stores(async |place| {
        let visitor = Browser::new(app(place.layer.clone()));
        assert_eq!(shown(&visitor, "/page").await, "");
        assert!(visitor.cookie("__Host-id").is_none());
        let page = visitor.post_form("/say?text=saved", &[]).await;
        assert!(visitor.cookie("__Host-id").is_some());
        assert_eq!(visitor.follow(&page).await.body, "info: saved");
        assert_eq!(shown(&visitor, "/page").await, "");
    })
    .await;
}

#[tokio::test]
async fn levels_and_texts_are_shown_in_the_order_in_which_they_came() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        let odd = "<b>\"\u{202e}\0\n\u{1f331}";
        visitor
            .visit(async |session| {
                let flash = Flash::of(&session);
                flash.warning("1")?;
                flash.success("2")?;
                flash.error("3")?;
                flash.info(odd)
            })
            .await;
        place.pass(Duration::from_secs(1));
        visitor.visit(async |session| Flash::of(&session).add(FlashLevel::Success, "")).await;
        let taken = visitor.visit(async |session| Flash::of(&session).take()).await;
        let taken: Vec<_> = taken.iter().map(|message| (message.level.as_str(), &*message.text)).collect();
        assert_eq!(taken, [("warning", "1"), ("success", "2"), ("error", "3"), ("info", odd), ("success", "")]);
        assert!(visitor.fields().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn two_tabs_neither_lose_each_others_messages_nor_take_what_they_have_not_shown() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.visit(async |session| Flash::of(&session).info("one")).await;
        let tab = visitor.copy();
        let taken = visitor
            .visit(async |session| {
                // Another tab adds two while this one is on its way.
                tab.visit(async |session| Flash::of(&session).info("two")).await;
                tab.visit(async |session| Flash::of(&session).info("three")).await;
                let flash = Flash::of(&session);
                let taken = flash.take()?;
                flash.info("four")?;
                Ok(taken)
            })
            .await;
        assert_eq!(taken.len(), 1);
        let mut rest: Vec<_> = visitor.visit(async |session| Flash::of(&session).take()).await;
        rest.sort_by(|one, other| one.text.cmp(&other.text));
        assert_eq!(rest.iter().map(|message| &*message.text).collect::<Vec<_>>(), ["four", "three", "two"]);
    })
    .await;
}

#[tokio::test]
async fn a_message_for_one_page_waits_for_it() {
    on_both_stores(async |place| {
        let visitor = with_session(&place).await;
        say_at(&visitor, "in-your-cart", "/cart").await;
        say(&visitor, "for-any").await;
        assert_eq!(shown(&visitor, "/page").await, "info: for-any");
        assert_eq!(shown(&visitor, "/cart?from=/page").await, "info: in-your-cart");
        assert_eq!(shown(&visitor, "/cart").await, "");
        // A query is no part of it; in a nested router the path is what its handler sees.
        say_at(&visitor, "again", "/cart%3Fx=1%23y").await;
        assert_eq!(shown(&visitor, "/nested/cart").await, "info: again");
    })
    .await;
}

#[tokio::test]
async fn a_page_that_finds_none_writes_nothing_and_one_that_says_and_shows_at_once_neither() {
    let store = Watched::new();
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap());
    let at_once = async |flash: Flash| {
        flash.error("wrong password")?;
        Ok::<_, Error>(flash.take()?.len().to_string())
    };
    let pages = Router::new().route("/at-once", get(at_once)).layer(layer.clone());
    let visitor = Browser::new(pages.merge(app(layer)));
    assert_eq!((shown(&visitor, "/at-once").await, store.len()), ("1".to_owned(), 0));
    visitor.post_form("/begin", &[]).await;
    say_at(&visitor, "elsewhere", "/cart").await;
    store.calls();
    for _ in 0..3 {
        assert_eq!(shown(&visitor, "/page").await, "");
    }
    assert_eq!(shown(&visitor, "/at-once").await, "1");
    assert_eq!(store.calls(), Calls { loads: 4, ..Calls::default() });
}

#[tokio::test]
async fn what_waits_is_bounded_and_the_oldest_go_first() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        // By one request, and by one after the other; some for a page that nobody visits.
        visitor
            .visit(async |session| {
                let flash = Flash::of(&session);
                (1..=30).try_for_each(|text| flash.info(text.to_string()))
            })
            .await;
        for text in 31..=40 {
            visitor.visit(async |session| Flash::of(&session).for_path("/cart").info(text.to_string())).await;
        }
        assert_eq!(visitor.fields().await.len(), 16);
        let taken = visitor.visit(async |session| Flash::of(&session).for_path("/cart").take()).await;
        let texts: Vec<_> = taken.into_iter().map(|message| message.text).collect();
        assert_eq!(texts, (25..=40).map(|text| text.to_string()).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn what_a_failed_page_has_taken_is_shown_by_the_next() {
    on_both_stores(async |place| {
        let visitor = with_session(&place).await;
        say(&visitor, "saved").await;
        let page = visitor.get("/broken").await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (502, "info: saved"));
        assert_eq!(shown(&visitor, "/page").await, "info: saved");
        assert_eq!(shown(&visitor, "/page").await, "");
    })
    .await;
}

#[tokio::test]
async fn a_logout_says_goodbye_in_a_new_session() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.visit(async |session| session.log_in("ada").await).await;
        let copy = visitor.copy();
        visitor
            .visit(async |session| {
                Flash::of(&session).info("dropped with the session")?;
                session.log_out().await?;
                Flash::of(&session).success("goodbye")
            })
            .await;
        let shown = visitor
            .visit(async |session| {
                assert_eq!(session.user::<String>()?, None);
                Flash::of(&session).take()
            })
            .await;
        assert_eq!(shown.iter().map(|message| &*message.text).collect::<Vec<_>>(), ["goodbye"]);
        assert!(matches!(copy.visit(async |session| Ok(session.status())).await, Status::Ended(_)));
    })
    .await;
}

#[tokio::test]
async fn fields_that_only_look_like_messages_are_left_alone() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        let own = ["flash", "flash.", "flash.1780000000000.000.00ff00ff00", "flash.sale"];
        visitor.visit(async |session| own.iter().try_for_each(|name| session.insert(name, &1))).await;
        visitor.visit(async |session| Flash::of(&session).info("a message")).await;
        assert_eq!(visitor.visit(async |session| Flash::of(&session).take()).await.len(), 1);
        let names: Vec<_> = visitor.fields().await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, own);
    })
    .await;
}

#[tokio::test]
async fn messages_fail_as_other_edits_do() {
    let store = Watched::new();
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap()).size_limit(200);
    let too_long = async |flash: Flash| flash.info("a".repeat(200));
    let pages = Router::new().route("/too-long", post(too_long)).layer(layer.clone());
    let visitor = Browser::new(pages.merge(app(layer)));
    assert_eq!(visitor.post_form("/too-long", &[]).await.status, 413);
    say(&visitor, "short").await;
    store.fail(Kind::Unavailable);
    assert_eq!(visitor.get("/page").await.status, 503);
    assert_eq!(visitor.post_form("/say?text=lost", &[]).await.status, 503);
    store.heal();
    assert_eq!(shown(&visitor, "/page").await, "info: short");
}
