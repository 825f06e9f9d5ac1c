//! Hears which sessions end, on whatever server: one subscription for the whole process, begun when somebody waits.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use redis_session_core::{EndListener, SessionKey};

use crate::node::AbortOnDrop;
use crate::subscription::{Heard, Subscription};
use crate::target::{Settings, Target};

/// How often it is looked whether the server that is listened to is still one to listen to.
const EVERY: Duration = Duration::from_millis(250);
/// The same as long as there is none.
const SOON: Duration = Duration::from_millis(20);

/// The channel on which `end.lua` tells.
pub(crate) fn channel(prefix: &str) -> String {
    format!("{prefix}ended")
}

/// Says at which server to listen, for who listens to this one now: another one only where this one will not do, since
/// what is told during a move is not heard. `None`: none is well.
type Post = Arc<dyn Fn(Option<&Target>) -> Option<Arc<Target>> + Send + Sync>;

/// Tells listeners of the sessions that end.
pub(crate) struct Bell {
    post: Post,
    settings: Settings,
    prefix: String,
    listeners: Arc<Listeners>,
    /// Not before somebody listens.
    task: OnceLock<AbortOnDrop<()>>,
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
    pub(crate) fn new(
        post: impl Fn(Option<&Target>) -> Option<Arc<Target>> + Send + Sync + 'static,
        settings: Settings,
        prefix: String,
    ) -> Self {
        Self { post: Arc::new(post), settings, prefix, listeners: Arc::default(), task: OnceLock::new() }
    }

    /// Begins to hear, unless it does already. Must be called within a runtime.
    pub(crate) fn listen(&self, listener: EndListener) {
        self.listeners.0.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        self.task.get_or_init(|| {
            let ear = Ear { post: self.post.clone(), settings: self.settings, prefix: self.prefix.clone() };
            AbortOnDrop(tokio::spawn(listen(ear, self.listeners.clone())))
        });
    }
}

/// What the task knows of a bell.
struct Ear {
    post: Post,
    settings: Settings,
    prefix: String,
}

/// Listens to one server after the other, for ever. Whatever one of a cluster or a replicated one publishes, all hear.
async fn listen(ear: Ear, listeners: Arc<Listeners>) {
    loop {
        let Some(target) = (ear.post)(None) else {
            tokio::time::sleep(SOON).await;
            continue;
        };
        let (prefix, listeners) = (ear.prefix.clone(), listeners.clone());
        let tell = move |heard: Heard<'_>| match heard {
            Heard::Gap => listeners.tell(None),
            Heard::Message(_, text) => {
                if let Some(session) = text.strip_prefix(&*prefix).and_then(session) {
                    listeners.tell(Some(&session));
                }
            }
        };
        match Subscription::start(&target, &ear.settings, vec![channel(&ear.prefix)], tell) {
            Ok(_subscription) => until_elsewhere(&ear.post, &target).await,
            Err(error) => {
                // Those who wait look by themselves all the same.
                tracing::error!(target: "redis_session", "ends of sessions are not heard of: {error}");
                return;
            }
        }
    }
}

/// Until another server is the one to listen to.
async fn until_elsewhere(post: &Post, target: &Target) {
    loop {
        tokio::time::sleep(EVERY).await;
        if post(Some(target)).is_some_and(|post| post.place() != target.place()) {
            return;
        }
    }
}

fn session(text: &str) -> Option<SessionKey> {
    let (realm, handle) = text.rsplit_once(':')?;
    SessionKey::from_text(&realm.into(), handle)
}
