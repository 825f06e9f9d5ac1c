//! The part of the contract that is about durable writes: they end as others do, and what they say of replicas. Whether a
//! write is on its replicas no suite for any store can see.

use redis_session_core::{Replication, Waited};

use super::*;

pub(super) const CASES: &[(&str, Case)] = cases![
    a_durable_write_is_made_as_any_other,
    a_durable_write_makes_the_same_checks_and_misses_nothing_where_it_writes_nothing,
    a_durable_copy_of_a_write_that_ran_is_not_run_again,
    what_misses_its_replicas_stands,
];

/// What most servers of a test have or have not.
const ONE: Replication = Replication { replicas: 1, within: Duration::from_millis(20) };
/// What no server has.
const TOO_MANY: Replication = Replication { replicas: 1000, within: Duration::from_millis(20) };

/// What a write that was made came to, wherever it is.
fn made<T>(waited: Waited<T>) -> Result<T, Broken> {
    match waited.missed {
        Some(error) if !error.is_not_replicated() => Err(Broken(format!("replicas are missed by {error:?}"))),
        _ => Ok(waited.outcome),
    }
}

/// What one came to that wrote nothing.
fn not_made<T: fmt::Debug>(waited: Waited<T>) -> Result<T, Broken> {
    match waited.missed {
        Some(error) => Err(Broken(format!("{:?} misses replicas: {error}", waited.outcome))),
        None => Ok(waited.outcome),
    }
}

impl Session<'_> {
    async fn create_durably(&self, create: &Create, on: Replication) -> Result<Waited<Created>, Broken> {
        Ok(self.store.create_durably(&self.key, create, on).await?)
    }

    async fn save_durably(&self, save: &Save, on: Replication) -> Result<Waited<Saved>, Broken> {
        Ok(self.store.save_durably(&self.key, save, on).await?)
    }

    async fn end_durably(&self, end: &End, on: Replication) -> Result<Waited<Ended>, Broken> {
        Ok(self.store.end_durably(&self.key, end, on).await?)
    }
}

async fn a_durable_write_is_made_as_any_other(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let create = session.fresh(&[("n", "1")]).await?;
    let Created::Created { at } = made(session.create_durably(&create, ONE).await?)? else {
        return Err(Broken("it is not created".to_owned()));
    };
    is("the creation", session.record().await?.created, at)?;
    let save = session.merge(create.token, changes(&[("n", Change::Increment(1))])).await?;
    match made(session.save_durably(&save, ONE).await?)? {
        Saved::Saved { before, at } => {
            is("the version before", before, Some(create.token))?;
            is("seen", session.record().await?.seen, at)?;
        }
        other => return Err(Broken(format!("a save that can be made answers {other:?}"))),
    }
    session.holds("the count", &[("n", "2")]).await?;
    let touch = session.touch(create.token).await?;
    is("a touch", matches!(made(session.save_durably(&touch, ONE).await?)?, Saved::Saved { .. }), true)?;
    is("the end", made(session.end_durably(&session.destroy().await?, ONE).await?)?, Ended::Ended)?;
    is("the reason", session.tombstone().await?.reason, Reason::Destroyed)
}

async fn a_durable_write_makes_the_same_checks_and_misses_nothing_where_it_writes_nothing(
    bench: &Bench<'_>,
) -> Outcome {
    let session = bench.session()?;
    let create = session.fresh(&[("n", "x")]).await?;
    let late = Create { not_after: session.too_late().await?, ..create.clone() };
    is("a late create", not_made(session.create_durably(&late, ONE).await?)?, Created::Late)?;
    let nothing = session.edit(create.token, Changes::default()).await?;
    is("a save of nothing", not_made(session.save_durably(&nothing, ONE).await?)?, Saved::Gone)?;
    let end = session.destroy().await?;
    is("an end of nothing", not_made(session.end_durably(&end, ONE).await?)?, Ended::Gone)?;

    session.create(&create).await?;
    let before = session.record().await?;
    let second = session.fresh(&[]).await?;
    is("a second create", not_made(session.create_durably(&second, ONE).await?)?, Created::Exists)?;
    let edit = session.edit(create.token, set(&[("n", "1")])).await?;
    let other = bench.session()?.id.proof();
    let saves = [
        (Save { not_after: session.too_late().await?, ..edit.clone() }, Saved::Late),
        (Save { proof: other, ..edit.clone() }, Saved::Replaced),
        (Save { base: token()?, ..edit.clone() }, Saved::Moved(Box::new(before.clone()))),
        (Save { changes: changes(&[("n", Change::Increment(1))]), ..edit.clone() }, Saved::Refused(bytes("n"))),
    ];
    for (save, wanted) in saves {
        is("a save", not_made(session.save_durably(&save, ONE).await?)?, wanted)?;
    }
    let ends = [
        (End { not_after: session.too_late().await?, ..end.clone() }, Ended::Late),
        (End { whose: Whose::Nobodys(other), ..end.clone() }, Ended::Others),
        (End { whose: Whose::Expired(LONG), ..end.clone() }, Ended::Alive),
    ];
    for (end, wanted) in ends {
        is("an end", not_made(session.end_durably(&end, ONE).await?)?, wanted)?;
    }
    is("the record", session.record().await?, before)?;
    session.end(&end).await?;
    let ended = Saved::Ended(session.tombstone().await?);
    is("a save after the end", not_made(session.save_durably(&edit, ONE).await?)?, ended)
}

async fn a_durable_copy_of_a_write_that_ran_is_not_run_again(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let create = session.fresh(&[("n", "0")]).await?;
    let first = session.create(&create).await?;
    bench.advance(5).await;
    is("the create", made(session.create_durably(&create, ONE).await?)?, first)?;
    let save = session.merge(create.token, changes(&[("n", Change::Increment(1))])).await?;
    session.saved(&save).await?;
    match made(session.save_durably(&save, ONE).await?)? {
        Saved::Saved { before, .. } => is("the version before", before, Some(create.token))?,
        other => return Err(Broken(format!("a save that ran answers {other:?}"))),
    }
    session.holds("the count", &[("n", "1")]).await?;
    let end = session.destroy().await?;
    session.end(&end).await?;
    let tombstone = session.tombstone().await?;
    bench.advance(5).await;
    is("the end", made(session.end_durably(&end, ONE).await?)?, Ended::Already(tombstone))?;
    is("what is there", session.tombstone().await?, tombstone)
}

async fn what_misses_its_replicas_stands(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let create = session.fresh(&[("n", "0")]).await?;
    let created = made(session.create_durably(&create, TOO_MANY).await?)?;
    is("the create", matches!(created, Created::Created { .. }), true)?;
    let save = session.merge(create.token, changes(&[("n", Change::Increment(1))])).await?;
    for what in ["the save", "the same again"] {
        let saved = made(session.save_durably(&save, TOO_MANY).await?)?;
        is(what, matches!(saved, Saved::Saved { .. }), true)?;
    }
    session.holds("the count", &[("n", "1")]).await?;
    is("the end", made(session.end_durably(&session.destroy().await?, TOO_MANY).await?)?, Ended::Ended)?;
    session.tombstone().await.map(|_| ())
}
