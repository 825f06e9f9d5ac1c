//! Hears which sessions end, on whatever server: one subscription for the whole process, begun when somebody waits.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{ClusterHash, CustomCommand, Value};
use redis_session_core::{EndListener, Error, SessionKey};
use tokio::sync::broadcast::error::RecvError;

use crate::node::{AbortOnDrop, Settings, Target};

/// How often the subscription is asked whether it still hears.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take. Two that take longer close the connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// The channel on which `end.lua` tells.
pub(crate) fn channel(prefix: &str) -> String {
    format!("{prefix}ended")
}

/// Tells listeners of the sessions that end.
pub(crate) struct Bell {
    target: Target,
    settings: Settings,
    prefix: String,
    listeners: Arc<Listeners>,
    /// Not before somebody listens.
    tasks: OnceLock<Vec<AbortOnDrop<()>>>,
}

#[derive(Default)]
struct Listeners(Mutex<Vec<EndListener>>);

impl Listeners {
    fn tell(&self, session: Option<&SessionKey>) {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        listeners.iter().for_each(|listener| listener(session));
    }
}

impl Bell {
    pub(crate) fn new(target: Target, settings: Settings, prefix: String) -> Self {
        Self { target, settings, prefix, listeners: Arc::default(), tasks: OnceLock::new() }
    }

    /// Begins to hear, unless it does already. Must be called within a runtime.
    pub(crate) fn listen(&self, listener: EndListener) {
        self.listeners.0.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        self.tasks.get_or_init(|| match self.begin() {
            Ok(tasks) => tasks,
            Err(error) => {
                // Those who wait look by themselves all the same.
                tracing::error!(target: "redis_session", "ends of sessions are not heard of: {error}");
                Vec::new()
            }
        });
    }

    fn begin(&self) -> Result<Vec<AbortOnDrop<()>>, Error> {
        let client = self.target.subscriber(&self.settings)?;
        let hear = hear(client.clone(), self.prefix.clone(), self.listeners.clone());
        // First of all, so that no message is earlier.
        let hear = AbortOnDrop(tokio::spawn(hear));
        let subscribe = subscribe(client.clone(), channel(&self.prefix), self.listeners.clone());
        let tasks = [
            AbortOnDrop(tokio::spawn(connect(client.clone()))),
            AbortOnDrop(tokio::spawn(subscribe)),
            AbortOnDrop(tokio::spawn(watch(client))),
            hear,
        ];
        Ok(tasks.into())
    }
}

async fn connect(client: SubscriberClient) {
    loop {
        let mut connection = AbortOnDrop(client.connect());
        let _ended = (&mut connection.0).await;
        tokio::time::sleep(PATIENCE).await;
    }
}

/// Subscribes on every new connection. What ended without one was not heard of.
async fn subscribe(client: SubscriberClient, channel: String, listeners: Arc<Listeners>) {
    let mut connections = client.reconnect_rx();
    loop {
        if client.is_connected() && client.subscribe(channel.as_str()).await.is_ok() {
            listeners.tell(None);
            match connections.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Hands on what is heard.
async fn hear(client: SubscriberClient, prefix: String, listeners: Arc<Listeners>) {
    let mut messages = client.message_rx();
    loop {
        match messages.recv().await {
            Ok(message) => {
                let session = message.value.as_str().and_then(|text| session(text.strip_prefix(&*prefix)?));
                if let Some(session) = session {
                    listeners.tell(Some(&session));
                }
            }
            Err(RecvError::Lagged(_)) => listeners.tell(None),
            Err(RecvError::Closed) => return,
        }
    }
}

fn session(text: &str) -> Option<SessionKey> {
    let (realm, handle) = text.rsplit_once(':')?;
    SessionKey::from_text(&realm.into(), handle)
}

/// A connection may be dead without anybody telling.
async fn watch(client: SubscriberClient) {
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
            tracing::warn!("the subscription to ends of sessions is silent; its connection is made anew");
            let client = client.clone();
            // It returns once connected again, which may take for ever; it ends with the connection's task.
            tokio::spawn(async move { client.force_reconnection().await });
            missed = 0;
        }
    }
}
