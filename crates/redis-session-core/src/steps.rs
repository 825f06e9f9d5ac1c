//! The steps of a store as pure functions: for stores that read, decide and write under a lock or in a transaction.

use crate::expiry::Wishes;
use crate::fields::{Change, Fields};
use crate::record::{Record, ReplacedBy, Stored, Token, Tokens, Tombstone};
use crate::rules::Rule;
use crate::store::{Create, Created, End, Ended, Save, Saved, Step, Whose};
use crate::time::Time;

/// What is to be at a session's key after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// A record or a tombstone.
    pub stored: Stored,
    /// When it is to go.
    pub deadline: Time,
}

impl Create {
    /// What this create comes to at `now` where this is at its key, and what is to be written. `None`: nothing is.
    pub fn on(&self, there: Option<&Stored>, now: Time) -> (Created, Option<Kept>) {
        match there {
            Some(Stored::Record(record)) if record.tokens.contains(self.token) => {
                return (Created::Created { at: record.created }, None);
            }
            Some(_) if Rule::CreateNeedsAbsence.holds() => return (Created::Exists, None),
            _ => {}
        }
        if now > self.not_after && Rule::NotAfter.holds() {
            return (Created::Late, None);
        }
        let wishes = self.wish.apply(Wishes::default(), now);
        let record = Record {
            tokens: Tokens::first(self.token),
            proof: self.proof,
            proved: now,
            previous: None,
            created: now,
            seen: now,
            wishes,
            login: self.login.as_ref().map(|login| Box::new(login.at(now))),
            fields: self.fields.clone(),
        };
        let deadline = self.life.deadline(now, now, &wishes);
        (Created::Created { at: now }, Some(Kept { stored: Stored::Record(record), deadline }))
    }
}

impl Save {
    /// What this save comes to at `now` where this is at its key, and what is to be written. `None`: nothing is.
    pub fn on(&self, there: Option<&Stored>, now: Time) -> (Saved, Option<Kept>) {
        let nothing = |saved| (saved, None);
        let kept = |record: Record| {
            let deadline = self.life.deadline(record.created, record.seen, &record.wishes);
            Some(Kept { stored: Stored::Record(record), deadline })
        };
        let mut record = match there {
            Some(Stored::Record(record)) => record.clone(),
            Some(Stored::Ended(tombstone)) if Rule::SaveStopsAtTombstone.holds() => {
                return nothing(Saved::Ended(*tombstone));
            }
            None if Rule::SaveNeedsRecord.holds() => return nothing(Saved::Gone),
            // Only where a test took one of the two rules out: the record rises again, as it does in other libraries.
            _ => Record {
                tokens: Tokens::first(self.base),
                proof: self.proof,
                proved: now,
                previous: None,
                created: now,
                seen: now,
                wishes: Wishes::default(),
                login: None,
                fields: Fields::default(),
            },
        };
        if self.life.deadline(record.created, record.seen, &record.wishes) <= now && Rule::DeadlinesAreChecked.holds() {
            return nothing(Saved::Gone);
        }
        let own = self.token.iter().chain(&self.earlier).find(|token| record.tokens.contains(**token));
        let ran_before = own.filter(|_| Rule::OwnTokenIsSaved.holds()).map(|own| record.tokens.before(*own));
        if let Some(before) = ran_before
            && Rule::OwnTokenComesFirst.holds()
        {
            let changed_the_proof = matches!(self.step, Step::Rotate(_) | Step::LogIn(..));
            return nothing(Saved::Saved { before, at: if changed_the_proof { record.proved } else { now } });
        }
        if now > self.not_after && Rule::NotAfter.holds() {
            return nothing(Saved::Late);
        }
        match right_of(self, &record, now) {
            Right::Holds => {}
            Right::LoggedInAlready => return nothing(Saved::LoggedInAlready),
            Right::Replaced if !Rule::ProofMustHold.holds() => {}
            Right::Replaced => return nothing(Saved::Replaced),
        }
        // Before all that, unless a test took the rule out.
        if let Some(before) = ran_before {
            return nothing(Saved::Saved { before, at: now });
        }
        if self.token.is_some() && !runs_on(self, &record) {
            return nothing(Saved::Moved(Box::new(record)));
        }
        let before = Some(record.tokens.newest());
        if let Err(refusal) = carry_out(self, &mut record, now) {
            if Rule::RefusedWritesNothing.holds() {
                return nothing(refusal);
            }
            set_what_can_be(self, &mut record);
            return (refusal, kept(record));
        }
        (Saved::Saved { before, at: now }, kept(record))
    }
}

impl End {
    /// What this end comes to at `now` where this is at its key, and what is to be written. `None`: nothing is.
    pub fn on(&self, there: Option<&Stored>, now: Time) -> (Ended, Option<Kept>) {
        let answer = match there {
            Some(Stored::Ended(tombstone)) => return (Ended::Already(*tombstone), None),
            None if !self.reason.also_ends_what_is_to_come() || !Rule::AbsenceIsMarked.holds() => {
                return (Ended::Gone, None);
            }
            _ if now > self.not_after && Rule::NotAfter.holds() => return (Ended::Late, None),
            None => Ended::Gone,
            Some(Stored::Record(record)) => match whose(&self.whose, record, now) {
                Ended::Ended => Ended::Ended,
                refusal => return (refusal, None),
            },
        };
        let tombstone = Tombstone { reason: self.reason, at: now };
        (answer, Some(Kept { stored: Stored::Ended(tombstone), deadline: now + Tombstone::STAYS }))
    }
}

/// Whether this end is for this record: `Ended` if so.
fn whose(whose: &Whose, record: &Record, now: Time) -> Ended {
    match whose {
        Whose::Nobodys(_) if record.login.is_some() && Rule::EndsNameTheirUser.holds() => Ended::Others,
        Whose::Nobodys(proof) if *proof != record.proof && Rule::EndsNeedTheProof.holds() => Ended::Others,
        Whose::Users(_) | Whose::ArrivedBefore(_) if record.login.is_none() => Ended::Nobodys,
        Whose::Users(user) if record.user() != Some(user) && Rule::EndsNameTheirUser.holds() => Ended::Others,
        Whose::ArrivedBefore(time) if record.login.as_ref().is_some_and(|login| login.arrived >= *time) => {
            Ended::Others
        }
        Whose::Expired(life) if life.deadline(record.created, record.seen, &record.wishes) > now => Ended::Alive,
        _ => Ended::Ended,
    }
}

/// What a request's proof is good for.
enum Right {
    Holds,
    LoggedInAlready,
    Replaced,
}

fn right_of(save: &Save, record: &Record, now: Time) -> Right {
    if save.proof == record.proof {
        return Right::Holds;
    }
    let Some(previous) = record.previous.filter(|previous| previous.proof == save.proof) else {
        return Right::Replaced;
    };
    match (&save.step, previous.by) {
        (Step::Rotate(_), _) if Rule::WhoWasRenewedDoesNotRotate.holds() => Right::Replaced,
        // Somebody was first, and made the same one.
        (Step::Renew(new), ReplacedBy::Renewal | ReplacedBy::SeenRenewal) if *new != record.proof => Right::Replaced,
        (_, ReplacedBy::Renewal | ReplacedBy::SeenRenewal) => Right::Holds,
        (Step::LogIn(_, login), ReplacedBy::Login)
            if record.user() == Some(&login.user) && (now - login.waited).since(previous.at) < Tombstone::STAYS =>
        {
            Right::LoggedInAlready
        }
        _ => Right::Replaced,
    }
}

/// Whether a save may run on this version of the record.
fn runs_on(save: &Save, record: &Record) -> bool {
    if save.merges {
        record.tokens.contains(save.base) || !Rule::MergesNeedARecentVersion.holds()
    } else {
        record.tokens.newest() == save.base || !Rule::EditsNeedTheirVersion.holds()
    }
}

fn carry_out(save: &Save, record: &mut Record, now: Time) -> Result<(), Saved> {
    let before = if save.changes.clear { Fields::default() } else { record.fields.clone() };
    for (name, change) in &save.changes.fields {
        if let Change::Increment(by) = change {
            before.incremented(name, *by).map_err(|_| Saved::Refused(name.clone()))?;
        }
    }
    let mut fields = record.fields.clone();
    fields.apply(&save.changes).map_err(|_| Saved::TooLarge)?;
    // On its very base the caller knows the size, and may shrink what was over the limit before.
    if save.base != record.tokens.newest() && !save.changes.is_empty() && fields.size() > save.limit {
        return Err(Saved::TooLarge);
    }
    record.fields = fields;
    if save.renews {
        record.seen = now;
    }
    record.wishes = save.wish.apply(record.wishes, now);
    save.step.take(record, save.proof, now);
    if let Some(token) = save.token.filter(|_| Rule::SavesPushTheirToken.holds()) {
        record.tokens.push(token);
    }
    if save.token.is_none() && !Rule::TouchesPushNoToken.holds() {
        let by_the_clock = format!("{:08}", now.as_millis() % 100_000_000);
        record.tokens.push(Token::from_text(by_the_clock.as_bytes()).unwrap_or(save.base));
    }
    Ok(())
}

/// What a script leaves that gives up half-way: only where a test took out the rule that nothing is left.
fn set_what_can_be(save: &Save, record: &mut Record) {
    for (name, change) in &save.changes.fields {
        if let Change::Set(value) = change {
            record.fields.set(name.clone(), value.clone());
        }
    }
}
