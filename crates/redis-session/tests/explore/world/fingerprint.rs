//! What matters of a schedule for what can come: two that lead to the same are one from there on.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use redis_session_core::{Created, Doomed, Ended, Entered, Error, Saved, Standing, Stored};

use crate::wire::{Op, Outcome};

use super::{NAME, World};

impl World<'_> {
    /// A number for the state. A scenario has some thousands of states, so two with one number are not to be expected.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.faults, self.jumps, self.failovers, self.now(), &self.waiting).hash(&mut hasher);
        self.background.finish().hash(&mut hasher);
        self.hash_people(&mut hasher);
        for visit in &self.visits {
            std::mem::discriminant(&visit.progress).hash(&mut hasher);
            (visit.history.finish(), &visit.ticket, visit.generation, visit.excused).hash(&mut hasher);
            (visit.had_a_session, visit.was_replaced, visit.found_expired, visit.found_nothing_late).hash(&mut hasher);
            (visit.known_saves, visit.is_at_gate(), visit.dawdles_since, visit.pauses).hash(&mut hasher);
        }
        for call in self.stage.wire.calls().iter() {
            (call.who, call.asked).hash(&mut hasher);
            hash_op(&call.op, &mut hasher);
            if let Some(ran) = &call.ran {
                hash_outcome(ran, &mut hasher);
            }
        }
        for held in &self.held {
            held.who.hash(&mut hasher);
            hash_op(&held.op, &mut hasher);
        }
        let store = self.stage.wire.store();
        for (key, story) in &self.facts.sessions {
            (key, story).hash(&mut hasher);
            hash_outcome(&Op::Load(key.clone()).run(&store), &mut hasher);
        }
        for browser in &self.browsers {
            browser.jar.get(NAME).map(|cookie| &cookie.value).hash(&mut hasher);
            (browser.from, &browser.before, browser.from_late).hash(&mut hasher);
        }
        if self.scenario.budget.failovers > 0 {
            for (op, at) in &self.log {
                at.hash(&mut hasher);
                hash_op(op, &mut hasher);
            }
        }
        hasher.finish()
    }
}

pub(super) fn hash_op(op: &Op, hasher: &mut DefaultHasher) {
    (op.key(), op.name(), op.not_after()).hash(hasher);
    match op {
        Op::Create(_, create) => create.token.hash(hasher),
        Op::Save(_, save) => (save.token, &save.earlier, save.base).hash(hasher),
        Op::Load(_) | Op::Glance(_) | Op::End(..) => {}
        Op::Enter(user, enter) => (user, enter.session, enter.age, enter.instead_of).hash(hasher),
        Op::Prolong(user, prolong) => (user, prolong.session, prolong.add).hash(hasher),
        Op::Doom(user, _) | Op::Sessions(user) => user.hash(hasher),
        Op::Leave(user, sessions) => (user, sessions).hash(hasher),
        Op::Standing(user, session) => (user, session).hash(hasher),
    }
}

pub(super) fn hash_answer(answer: &Result<Outcome, Error>, hasher: &mut DefaultHasher) {
    match answer {
        Err(error) => error.kind().hash(hasher),
        Ok(outcome) => hash_outcome(outcome, hasher),
    }
}

fn hash_outcome(outcome: &Outcome, hasher: &mut DefaultHasher) {
    std::mem::discriminant(outcome).hash(hasher);
    match outcome {
        Outcome::Loaded(stored) => hash_stored(stored.as_ref(), hasher),
        Outcome::Saved(saved) => {
            std::mem::discriminant(saved).hash(hasher);
            match saved {
                Saved::Saved { before, at } => (before, at).hash(hasher),
                Saved::Moved(record) => hash_stored(Some(&Stored::Record((**record).clone())), hasher),
                _ => {}
            }
        }
        Outcome::Created(created) => {
            std::mem::discriminant(created).hash(hasher);
            if let Created::Created { at } = created {
                at.hash(hasher);
            }
        }
        Outcome::Ended(ended) => std::mem::discriminant::<Ended>(ended).hash(hasher),
        Outcome::Entered(entered) => {
            std::mem::discriminant(entered).hash(hasher);
            if let Entered::Entered { since_revoked, doomed } = entered {
                (since_revoked, doomed).hash(hasher);
            }
        }
        Outcome::Doomed(doomed) => {
            std::mem::discriminant(doomed).hash(hasher);
            if let Doomed::Doomed(sessions) = doomed {
                sessions.hash(hasher);
            }
        }
        Outcome::Prolonged(prolonged) => std::mem::discriminant(prolonged).hash(hasher),
        Outcome::Standing(standing) => {
            standing.as_ref().map(std::mem::discriminant::<Standing>).hash(hasher);
        }
        Outcome::Sessions(sessions) => sessions.hash(hasher),
        Outcome::Left => {}
    }
}

fn hash_stored(stored: Option<&Stored>, hasher: &mut DefaultHasher) {
    match stored {
        None => 0.hash(hasher),
        Some(Stored::Ended(tombstone)) => (tombstone.reason, tombstone.at).hash(hasher),
        Some(Stored::Record(record)) => {
            (record.proof.to_text(), record.tokens.to_text(), record.proved, record.created, record.seen).hash(hasher);
            (record.wishes.idle, record.wishes.remembered).hash(hasher);
            record.user().map(|user| user.as_str()).hash(hasher);
            if let Some(previous) = record.previous {
                (previous.proof.to_text(), std::mem::discriminant(&previous.by), previous.at).hash(hasher);
            }
            record.fields.iter().for_each(|field| field.hash(hasher));
        }
    }
}
