//! What does not change from schedule to schedule: two processes of an application on one store, and their keys.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;

use http::{Request, Response};
use redis_session::{Expiry, KeyRing, RedisSessionLayer, Sessions};
use redis_session_core::{Error, Random, Signer, User, UserKey};
use tower::Layer;
use tower::util::BoxCloneSyncService;

use crate::acts::{Job, application};
use crate::facts::MINUTE;
use crate::scenario::Scenario;
use crate::wire::{RUNNING, Who, Wire};

use super::{NAME, STRICT};

/// A process that answers, and the users' sessions as it has them.
pub(super) type Process = (BoxCloneSyncService<Request<Job>, Response<String>, Infallible>, Sessions);

/// What does not change from schedule to schedule.
pub(crate) struct Stage {
    pub(super) wire: Wire,
    /// The third takes the place of one that has died.
    pub(super) processes: [Process; 3],
    pub(super) signer: Signer,
    pub(super) realm: Arc<str>,
    /// The lists of users 1 and 2.
    pub(super) users: [UserKey; 2],
}

impl Stage {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (wire, repeats_ids) = (Wire::new(), scenario.repeats_ids);
        let keys = KeyRing::new((0..32).map(|at: u8| at.wrapping_mul(167) ^ 0x5a).collect::<Vec<_>>()).expect("a key");
        let process = |expiry| {
            let mut layer = RedisSessionLayer::with_store(wire.clone(), keys.clone())
                .expiry(expiry)
                .random(Random::scripted(move |bytes| draw(bytes, repeats_ids)));
            if let Some(cap) = scenario.cap.and_then(NonZeroUsize::new) {
                layer = layer.sessions_per_user(cap);
            }
            let sessions = layer.sessions();
            (BoxCloneSyncService::new(layer.layer(tower::service_fn(application))), sessions)
        };
        let expiry = if scenario.renews { Expiry::default().new_id_every(MINUTE) } else { Expiry::default() };
        let other = if scenario.stricter { Expiry::idle(STRICT) } else { expiry };
        let realm: Arc<str> = "main".into();
        let users = [1, 2].map(|user| User::new(user).expect("a number").key(&realm));
        Self {
            realm,
            users,
            processes: [process(expiry), process(other), process(expiry)],
            signer: keys.signer("main", NAME),
            wire: wire.clone(),
        }
    }
}

impl Stage {
    /// Whose list it is.
    pub(super) fn number_of(&self, user: &UserKey) -> u8 {
        if *user == self.users[0] { 1 } else { 2 }
    }
}

thread_local! {
    /// How often each request has drawn from the generator: so its bytes do not depend on what others do.
    static DRAWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn draw(bytes: &mut [u8], repeats_ids: bool) -> Result<(), Error> {
    let who = match RUNNING.get() {
        Who::Request(index) => index + 1,
        Who::Background => 0,
    };
    let nth = DRAWN.with_borrow_mut(|drawn| {
        drawn.resize(drawn.len().max(who + 1), 0);
        drawn[who] += 1;
        drawn[who]
    });
    // The first two draws of a request without a session are the halves of its id.
    let source = if repeats_ids && nth <= 2 { 1 } else { who };
    for (at, chunk) in bytes.chunks_mut(8).enumerate() {
        let mut hasher = DefaultHasher::new();
        (source, nth, at).hash(&mut hasher);
        chunk.copy_from_slice(&hasher.finish().to_le_bytes()[..chunk.len()]);
    }
    Ok(())
}

/// Begins a schedule from the start.
pub(super) fn reset(stage: &Stage) {
    stage.wire.reset();
    DRAWN.with_borrow_mut(Vec::clear);
}
