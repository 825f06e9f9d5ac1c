//! axum-messages' own example, unchanged, on our layer.

use axum::Router;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use axum_messages::{Messages, MessagesManagerLayer};
use redis_session_interop::tower_sessions::TowerSessionsLayer;
use redis_session_testkit::Browser;

use crate::place::{COOKIE, on_both_stores};

async fn set_messages_handler(messages: Messages) -> impl IntoResponse {
    messages.info("Hello, world!").debug("This is a debug message.");
    Redirect::to("/read-messages")
}

async fn read_messages_handler(messages: Messages) -> impl IntoResponse {
    let messages =
        messages.into_iter().map(|message| format!("{}: {}", message.level, message)).collect::<Vec<_>>().join(", ");
    if messages.is_empty() { "No messages yet!".to_string() } else { messages }
}

#[tokio::test]
async fn the_flow_of_their_example_basic() {
    on_both_stores(async |place| {
        let app = Router::new()
            .route("/", get(set_messages_handler))
            .route("/read-messages", get(read_messages_handler))
            .layer(MessagesManagerLayer)
            .layer(TowerSessionsLayer::new())
            .layer(place.layer.clone());
        let browser = Browser::new(app);
        assert_eq!(browser.get("/read-messages").await.body, "No messages yet!");
        assert_eq!(browser.cookie(COOKIE), None);
        let answer = browser.get("/").await;
        assert_eq!(browser.follow(&answer).await.body, "Info: Hello, world!, Debug: This is a debug message.");
        assert_eq!(browser.get("/read-messages").await.body, "No messages yet!");
    })
    .await;
}
