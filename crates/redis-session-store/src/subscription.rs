//! A subscription to channels of one server, kept: made anew on every new connection, and asked whether it still hears.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{ClusterHash, CustomCommand, Value};
use redis_session_core::Error;
use tokio::sync::broadcast::error::RecvError;

use crate::node::{AbortOnDrop, stay_connected, word};
use crate::target::{Settings, Target};

/// How often the subscription is asked whether it still hears.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take. Two that take longer close the connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a subscription hears.
pub(crate) enum Heard<'a> {
    /// A message, and its channel.
    Message(&'a str, &'a str),
    /// There may have been messages that were not heard.
    Gap,
}

type Tell = Arc<dyn Fn(Heard<'_>) + Send + Sync>;

/// Ends when it is dropped.
pub(crate) struct Subscription {
    _tasks: [AbortOnDrop<()>; 4],
}

impl Subscription {
    /// Begins to connect. Must be called within a runtime.
    pub(crate) fn start(
        target: &Target,
        settings: &Settings,
        channels: Vec<String>,
        tell: impl Fn(Heard<'_>) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let (client, tell): (_, Tell) = (target.subscriber(settings)?, Arc::new(tell));
        // First of all, so that no message is earlier.
        let hear = AbortOnDrop(tokio::spawn(hear(client.clone(), tell.clone())));
        let tasks = [
            AbortOnDrop(tokio::spawn(stay_connected(client.clone(), PATIENCE))),
            AbortOnDrop(tokio::spawn(subscribe(client.clone(), channels, tell))),
            AbortOnDrop(tokio::spawn(watch(client, target.place().to_owned()))),
            hear,
        ];
        Ok(Self { _tasks: tasks })
    }
}

/// Subscribes on every new connection. What was published without one was not heard of.
async fn subscribe(client: SubscriberClient, channels: Vec<String>, tell: Tell) {
    let mut connections = client.reconnect_rx();
    let mut refused = false;
    loop {
        if !client.is_connected() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        if let Err(error) = client.subscribe(channels.clone()).await {
            if word(error.details()).is_some() && !std::mem::replace(&mut refused, true) {
                tracing::error!(target: "redis_session", "Redis refuses a subscription to {}: {}", channels.join(" "), error.details());
            }
            tokio::time::sleep(if refused { PATIENCE } else { Duration::from_millis(20) }).await;
            continue;
        }
        tell(Heard::Gap);
        match connections.recv().await {
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Hands on what is heard.
async fn hear(client: SubscriberClient, tell: Tell) {
    let mut messages = client.message_rx();
    loop {
        match messages.recv().await {
            Ok(message) => {
                if let Some(text) = message.value.as_str() {
                    tell(Heard::Message(&message.channel, &text));
                }
            }
            Err(RecvError::Lagged(_)) => tell(Heard::Gap),
            Err(RecvError::Closed) => return,
        }
    }
}

/// A connection may be dead without anybody telling.
async fn watch(client: SubscriberClient, place: String) {
    let mut missed = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        if !client.is_connected() {
            missed = 0;
            continue;
        }
        let ping = CustomCommand::new_static("PING", ClusterHash::FirstKey, false);
        let answer = tokio::time::timeout(PATIENCE, client.custom::<Value, Value>(ping, Vec::new())).await;
        missed = if matches!(answer, Ok(Ok(_))) { 0 } else { missed + 1 };
        if missed == 2 {
            tracing::warn!(redis = place, "a subscription is silent; its connection is made anew");
            let client = client.clone();
            // It returns once connected again, which may take for ever; it ends with the connection's task.
            tokio::spawn(async move { client.force_reconnection().await });
            missed = 0;
        }
    }
}
