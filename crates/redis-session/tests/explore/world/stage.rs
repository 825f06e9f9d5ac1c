//! What does not change from schedule to schedule: two processes of an application on one store, and their keys.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};

use http::{Request, Response};
use redis_session::{Expiry, KeyRing, RedisSessionLayer};
use redis_session_core::{Error, Random, Signer};
use tower::Layer;
use tower::util::BoxCloneSyncService;

use crate::acts::{Job, application};
use crate::scenario::Scenario;
use crate::wire::{RUNNING, Who, Wire};

use super::{NAME, STRICT};

/// What does not change from schedule to schedule.
pub(crate) struct Stage {
    pub(super) wire: Wire,
    pub(super) processes: [BoxCloneSyncService<Request<Job>, Response<String>, Infallible>; 2],
    pub(super) signer: Signer,
}

impl Stage {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (wire, repeats_ids) = (Wire::new(), scenario.repeats_ids);
        let keys = KeyRing::new((0..32).map(|at: u8| at.wrapping_mul(167) ^ 0x5a).collect::<Vec<_>>()).expect("a key");
        let process = |expiry| {
            let layer = RedisSessionLayer::with_store(wire.clone(), keys.clone())
                .expiry(expiry)
                .random(Random::scripted(move |bytes| draw(bytes, repeats_ids)));
            BoxCloneSyncService::new(layer.layer(tower::service_fn(application)))
        };
        let expiry = Expiry::default();
        let other = if scenario.stricter { Expiry::idle(STRICT) } else { expiry };
        Self { processes: [process(expiry), process(other)], signer: keys.signer("main", NAME), wire: wire.clone() }
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
