//! The contract of a store as a suite of small cases, each on a key of its own, that every `Store` must pass.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use redis_session_core::{
    BoxFuture, Change, Changes, Create, Created, End, Ended, Error, Fields, Life, Random, Reason, Record, Save, Saved,
    SessionId, SessionKey, Step, Store, Stored, Time, Token, Tokens, Tombstone, Whose, WishChange, Wishes,
};

/// Runs the contract of [`Store`] on a store, and that of its [`Index`](redis_session_core::Index) where it has one.
///
/// `advance` lets that much of the store's time pass: it moves the clock of a store that has one, and waits (some
/// seconds in all) where the time is a server's. Keys are random, so the store may be in use.
///
/// ```
/// use redis_session_core::{Clock, MemoryStore};
/// use redis_session_testkit::store_contract;
///
/// # async fn run() {
/// let clock = Clock::manual();
/// let store = MemoryStore::new().clock(clock.clone());
/// store_contract(store, |time| {
///     clock.advance(time);
///     std::future::ready(())
/// })
/// .await;
/// # }
/// ```
///
/// # Panics
/// If a case fails: with the names of all that failed, and what they found.
pub async fn store_contract<S, F>(store: S, advance: impl Fn(Duration) -> F + Send + Sync)
where
    S: Store,
    F: Future<Output = ()> + Send + 'static,
{
    run(&store, advance, &[CASES, durable::CASES, people::CASES]).await;
}

/// The same without durable writes, for a store that may not make them: whose Redis user may not `WAIT`.
///
/// # Panics
/// As [`store_contract`].
pub async fn fast_contract<S, F>(store: S, advance: impl Fn(Duration) -> F + Send + Sync)
where
    S: Store,
    F: Future<Output = ()> + Send + 'static,
{
    run(&store, advance, &[CASES, people::CASES]).await;
}

async fn run<F>(store: &dyn Store, advance: impl Fn(Duration) -> F + Send + Sync, suites: &[&[(&str, Case)]])
where
    F: Future<Output = ()> + Send + 'static,
{
    let advance = |time| -> BoxFuture<'static, ()> { Box::pin(advance(time)) };
    let bench = Bench { store, advance: &advance };
    let mut failed = Vec::new();
    for (name, case) in suites.iter().copied().flatten() {
        if let Err(Broken(how)) = case(&bench).await {
            failed.push(format!("{name}: {how}"));
        }
    }
    assert!(failed.is_empty(), "the store breaks its contract in {} cases\n{}", failed.len(), failed.join("\n"));
}

type Case = for<'a> fn(&'a Bench<'a>) -> BoxFuture<'a, Outcome>;
type Outcome = Result<(), Broken>;

/// What a case found, and what it should have.
struct Broken(String);

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self(format!("an error where none is due: {error:?}"))
    }
}

macro_rules! cases {
    ($($case:ident,)*) => { &[$((stringify!($case), |bench| Box::pin($case(bench)))),*] };
}

mod durable;
mod people;

const CASES: &[(&str, Case)] = cases![
    nothing_is_where_nothing_was_written,
    a_created_record_reads_back,
    exotic_names_and_values_read_back,
    many_fields_read_back_and_change,
    the_same_create_again_answers_as_the_first,
    a_create_stops_at_whatever_is_there,
    a_late_create_writes_nothing,
    a_create_takes_the_session_s_wishes,
    a_save_of_nothing_is_gone,
    a_save_after_the_end_meets_the_tombstone,
    a_save_that_ran_is_not_run_again,
    a_save_knows_the_tokens_of_earlier_tries,
    only_the_last_four_tokens_are_known,
    a_late_save_writes_nothing,
    a_save_with_another_proof_writes_nothing,
    an_edit_runs_on_its_version_only,
    a_merge_runs_on_the_last_four_versions,
    a_touch_renews_and_changes_no_version,
    a_touch_makes_the_same_checks,
    fields_are_set_replaced_and_removed,
    a_clear_comes_before_the_other_changes,
    increments_count,
    an_impossible_increment_writes_nothing,
    too_many_bytes_on_a_moved_record_write_nothing,
    what_is_over_a_new_limit_may_shrink,
    wishes_change_and_stay,
    a_rotation_replaces_the_proof_in_place,
    an_idle_session_goes,
    a_touched_session_stays,
    no_touch_outlives_the_absolute_deadline,
    a_session_s_own_idle_timeout_counts,
    a_remembered_session_stays,
    a_shorter_policy_reaches_living_sessions,
    an_end_leaves_a_tombstone,
    an_end_of_nothing_is_gone,
    a_late_end_writes_nothing,
    an_end_with_a_replaced_proof_ends_nothing,
    an_end_by_expiry_spares_who_was_renewed,
];

/// Far from any timeout.
const LONG: Life = Life { idle: 600_000, absolute: 3_600_000, touch: 60_000 };

fn idle(ms: u64) -> Life {
    Life { idle: ms, ..LONG }
}

struct Bench<'a> {
    store: &'a dyn Store,
    advance: &'a (dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync),
}

impl<'a> Bench<'a> {
    fn session(&self) -> Result<Session<'a>, Broken> {
        let id = SessionId::random(&Random::system())?;
        Ok(Session { store: self.store, key: id.key(&"contract".into()), id })
    }

    async fn advance(&self, ms: u64) {
        (self.advance)(Duration::from_millis(ms)).await;
    }
}

/// One key, and what a request for it would know.
struct Session<'a> {
    store: &'a dyn Store,
    id: SessionId,
    key: SessionKey,
}

impl Session<'_> {
    /// The store's time; a store may need an answer first to know it.
    async fn now(&self) -> Result<Time, Broken> {
        if self.store.now().is_none() {
            self.store.load(&self.key).await?;
        }
        self.store.now().ok_or_else(|| Broken("the clock is not known after a load".to_owned()))
    }

    async fn in_time(&self) -> Result<Time, Broken> {
        Ok(self.now().await? + Duration::from_secs(30))
    }

    async fn too_late(&self) -> Result<Time, Broken> {
        Ok(self.now().await? - Duration::from_secs(30))
    }

    async fn fresh(&self, fields: &[(&str, &str)]) -> Result<Create, Broken> {
        let pairs = fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        Ok(Create {
            token: token()?,
            not_after: self.in_time().await?,
            proof: self.id.proof(),
            life: LONG,
            wish: WishChange::default(),
            login: None,
            fields: Fields::from_pairs(pairs),
        })
    }

    async fn create(&self, create: &Create) -> Result<Created, Broken> {
        Ok(self.store.create(&self.key, create).await?)
    }

    /// Creates, and answers the first version.
    async fn born(&self, fields: &[(&str, &str)]) -> Result<Token, Broken> {
        self.born_with(LONG, fields).await
    }

    async fn born_with(&self, life: Life, fields: &[(&str, &str)]) -> Result<Token, Broken> {
        let create = Create { life, ..self.fresh(fields).await? };
        match self.create(&create).await? {
            Created::Created { .. } => Ok(create.token),
            other => Err(Broken(format!("a create on a new key answers {other:?}"))),
        }
    }

    async fn edit(&self, base: Token, changes: Changes) -> Result<Save, Broken> {
        Ok(Save {
            token: Some(token()?),
            earlier: Vec::new(),
            not_after: self.in_time().await?,
            proof: self.id.proof(),
            base,
            merges: false,
            changes,
            step: Step::Keep,
            renews: true,
            wish: WishChange::default(),
            life: LONG,
            limit: 1 << 20,
        })
    }

    async fn merge(&self, base: Token, changes: Changes) -> Result<Save, Broken> {
        Ok(Save { merges: true, ..self.edit(base, changes).await? })
    }

    async fn touch(&self, base: Token) -> Result<Save, Broken> {
        Ok(Save { token: None, ..self.edit(base, Changes::default()).await? })
    }

    async fn save(&self, save: &Save) -> Result<Saved, Broken> {
        Ok(self.store.save(&self.key, save).await?)
    }

    /// Saves, which must succeed; answers the time.
    async fn saved(&self, save: &Save) -> Result<Time, Broken> {
        match self.save(save).await? {
            Saved::Saved { at, .. } => Ok(at),
            other => Err(Broken(format!("a save that can be made answers {other:?}"))),
        }
    }

    /// Saves so many times on the newest version; answers all versions, the newest last.
    async fn versions(&self, first: Token, count: usize) -> Result<Vec<Token>, Broken> {
        let mut versions = vec![first];
        for n in 0..count {
            let save = self.edit(versions[n], set(&[("n", &n.to_string())])).await?;
            self.saved(&save).await?;
            versions.extend(save.token);
        }
        Ok(versions)
    }

    async fn end(&self, end: &End) -> Result<Ended, Broken> {
        Ok(self.store.end(&self.key, end).await?)
    }

    async fn destroy(&self) -> Result<End, Broken> {
        let whose = Whose::Nobodys(self.id.proof());
        Ok(End { not_after: self.in_time().await?, reason: Reason::Destroyed, whose })
    }

    async fn load(&self) -> Result<Option<Stored>, Broken> {
        Ok(self.store.load(&self.key).await?)
    }

    async fn record(&self) -> Result<Record, Broken> {
        match self.load().await? {
            Some(Stored::Record(record)) => Ok(record),
            other => Err(Broken(format!("there is no record but {other:?}"))),
        }
    }

    async fn tombstone(&self) -> Result<Tombstone, Broken> {
        match self.load().await? {
            Some(Stored::Ended(tombstone)) => Ok(tombstone),
            other => Err(Broken(format!("there is no tombstone but {other:?}"))),
        }
    }

    /// Whether the fields are these.
    async fn holds(&self, what: &str, fields: &[(&str, &str)]) -> Outcome {
        let pairs = fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        fields_are(what, &self.record().await?.fields, &Fields::from_pairs(pairs))
    }
}

fn token() -> Result<Token, Broken> {
    Ok(Token::random(&Random::system())?)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn set(fields: &[(&str, &str)]) -> Changes {
    changes(&fields.iter().map(|(name, value)| (*name, Change::Set(bytes(value)))).collect::<Vec<_>>())
}

fn changes(fields: &[(&str, Change)]) -> Changes {
    Changes { clear: false, fields: fields.iter().map(|(name, change)| (bytes(name), change.clone())).collect() }
}

fn is<T: PartialEq + fmt::Debug>(what: &str, found: T, wanted: T) -> Outcome {
    if found == wanted { Ok(()) } else { Err(Broken(format!("{what}: {found:?} instead of {wanted:?}"))) }
}

/// These are the suite's own values and may be shown; `Fields` hides them.
fn fields_are(what: &str, found: &Fields, wanted: &Fields) -> Outcome {
    let (found, wanted): (Vec<_>, Vec<_>) = (found.iter().collect(), wanted.iter().collect());
    is(what, found, wanted)
}

async fn nothing_is_where_nothing_was_written(bench: &Bench<'_>) -> Outcome {
    is("load", bench.session()?.load().await?, None)
}

async fn a_created_record_reads_back(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let create = session.fresh(&[("cart", "[1]"), ("name", "\"x\"")]).await?;
    let Created::Created { at } = session.create(&create).await? else {
        return Err(Broken("it is not created".to_owned()));
    };
    let near = session.now().await?;
    is("the creation is now", at.since(near).max(near.since(at)) < Duration::from_secs(5), true)?;
    let record = Record {
        tokens: Tokens::first(create.token),
        proof: create.proof,
        proved: at,
        previous: None,
        created: at,
        seen: at,
        wishes: Wishes::default(),
        login: None,
        fields: create.fields,
    };
    is("the record", session.record().await?, record)
}

async fn exotic_names_and_values_read_back(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let pairs: Vec<(Bytes, Bytes)> = vec![
        ("big".into(), "9007199254740993".into()),
        ("bigger".into(), "18446744073709551615".into()),
        ("real".into(), "1.0e300".into()),
        ("empty".into(), "".into()),
        ("".into(), "no name".into()),
        ("näme mit Leerzeichen".into(), "\"日本語 \u{1F980}\"".into()),
        (Bytes::from_static(b"\xff\xfe\x00"), Bytes::from_static(b"\x00\xff\r\n\x80")),
        ("crlf\r\n".into(), "\r\n".into()),
        ("long".into(), "x".repeat(200_000).into()),
    ];
    let fields = Fields::from_pairs(pairs.clone());
    let create = Create { fields: fields.clone(), ..session.fresh(&[]).await? };
    session.create(&create).await?;
    fields_are("after the create", &session.record().await?.fields, &fields)?;
    let again = Changes { clear: true, fields: pairs.into_iter().map(|(n, v)| (n, Change::Set(v))).collect() };
    let save = session.edit(create.token, again).await?;
    session.saved(&save).await?;
    fields_are("after a save", &session.record().await?.fields, &fields)?;
    match session.save(&session.edit(create.token, set(&[("a", "1")])).await?).await? {
        Saved::Moved(record) => fields_are("in a moved record", &record.fields, &fields),
        other => Err(Broken(format!("an edit on an old version answers {other:?}"))),
    }
}

async fn many_fields_read_back_and_change(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let pairs = |value: &str| -> Vec<(Bytes, Bytes)> {
        (0..10_000).map(|n| (Bytes::from(format!("field {n}")), bytes(value))).collect()
    };
    let create = Create { fields: Fields::from_pairs(pairs("1")), ..session.fresh(&[]).await? };
    session.create(&create).await?;
    fields_are("after the create", &session.record().await?.fields, &create.fields)?;
    let to_twos = pairs("2").into_iter().map(|(name, value)| (name, Change::Set(value))).collect();
    let second = session.edit(create.token, Changes { clear: false, fields: to_twos }).await?;
    session.saved(&second).await?;
    fields_are("after a save", &session.record().await?.fields, &Fields::from_pairs(pairs("2")))?;
    let counted = pairs("").into_iter().map(|(name, _)| (name, Change::Increment(3))).collect();
    let third = session.merge(create.token, Changes { clear: false, fields: counted }).await?;
    session.saved(&third).await?;
    fields_are("after as many counts", &session.record().await?.fields, &Fields::from_pairs(pairs("5")))?;
    let removed = pairs("").into_iter().map(|(name, _)| (name, Change::Remove)).collect();
    let fourth = session.merge(create.token, Changes { clear: false, fields: removed }).await?;
    session.saved(&fourth).await?;
    session.holds("after as many removals", &[]).await
}

async fn the_same_create_again_answers_as_the_first(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let create = session.fresh(&[("a", "1")]).await?;
    let first = session.create(&create).await?;
    bench.advance(5).await;
    is("at once", session.create(&create).await?, first.clone())?;
    session.versions(create.token, 3).await?;
    is("after three saves", session.create(&create).await?, first.clone())?;
    let late = Create { not_after: session.too_late().await?, ..create };
    is("after its time", session.create(&late).await?, first)?;
    session.holds("the fields", &[("a", "1"), ("n", "2")]).await
}

async fn a_create_stops_at_whatever_is_there(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    session.born(&[("a", "1")]).await?;
    let other = session.fresh(&[("b", "2")]).await?;
    is("a record", session.create(&other).await?, Created::Exists)?;
    let late = Create { not_after: session.too_late().await?, ..other.clone() };
    is("a record, and late", session.create(&late).await?, Created::Exists)?;
    session.holds("the fields", &[("a", "1")]).await?;
    session.end(&session.destroy().await?).await?;
    is("a tombstone", session.create(&other).await?, Created::Exists)?;
    session.tombstone().await.map(|_| ())
}

async fn a_late_create_writes_nothing(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let late = Create { not_after: session.too_late().await?, ..session.fresh(&[("a", "1")]).await? };
    is("the answer", session.create(&late).await?, Created::Late)?;
    is("load", session.load().await?, None)
}

async fn a_create_takes_the_session_s_wishes(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let wish = WishChange { idle: Some(Some(300_000)), remember: Some(Some(900_000)) };
    let create = Create { wish, ..session.fresh(&[]).await? };
    let Created::Created { at } = session.create(&create).await? else {
        return Err(Broken("it is not created".to_owned()));
    };
    let wishes = Wishes { idle: Some(300_000), remembered: Some(at + Duration::from_secs(900)) };
    is("the wishes", session.record().await?.wishes, wishes)
}

async fn a_save_of_nothing_is_gone(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let save = session.edit(token()?, set(&[("a", "1")])).await?;
    let late = Save { not_after: session.too_late().await?, ..save.clone() };
    is("in time", session.save(&save).await?, Saved::Gone)?;
    is("late", session.save(&late).await?, Saved::Gone)?;
    is("a merge", session.save(&Save { merges: true, ..save }).await?, Saved::Gone)?;
    is("a touch", session.save(&session.touch(token()?).await?).await?, Saved::Gone)?;
    is("load", session.load().await?, None)
}

async fn a_save_after_the_end_meets_the_tombstone(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("a", "1")]).await?;
    session.end(&session.destroy().await?).await?;
    let tombstone = session.tombstone().await?;
    let ended = || Saved::Ended(tombstone);
    let save = session.edit(first, set(&[("a", "2")])).await?;
    is("an edit", session.save(&save).await?, ended())?;
    let own = Save { token: Some(first), ..save.clone() };
    is("with a token that the record had", session.save(&own).await?, ended())?;
    let late = Save { not_after: session.too_late().await?, ..save };
    is("late", session.save(&late).await?, ended())?;
    is("a touch", session.save(&session.touch(first).await?).await?, ended())?;
    is("what is there", session.load().await?, Some(Stored::Ended(tombstone)))
}

async fn a_save_that_ran_is_not_run_again(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("n", "0")]).await?;
    let save = session.merge(first, changes(&[("n", Change::Increment(1))])).await?;
    let is_saved = |what: &str, found: Saved| match found {
        Saved::Saved { before: Some(before), .. } if before == first => Ok(()),
        other => Err(Broken(format!("{what}: {other:?} instead of saved after {first:?}"))),
    };
    is_saved("first", session.save(&save).await?)?;
    is_saved("again", session.save(&save).await?)?;
    let late = Save { not_after: session.too_late().await?, ..save.clone() };
    is_saved("again, late", session.save(&late).await?)?;
    let rotated = Save { step: Step::Rotate(bench.session()?.id.proof()), ..session.edit(token()?, set(&[])).await? };
    session.saved(&Save { base: save.token.unwrap_or(first), ..rotated }).await?;
    is_saved("again, after a rotation", session.save(&save).await?)?;
    session.holds("the count", &[("n", "1")]).await
}

async fn a_save_knows_the_tokens_of_earlier_tries(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let versions = session.versions(session.born(&[]).await?, 2).await?;
    let save = Save { earlier: vec![token()?, versions[1], token()?], ..session.edit(versions[0], set(&[])).await? };
    match session.save(&save).await? {
        Saved::Saved { before, .. } => is("the version before", before, Some(versions[0]))?,
        other => return Err(Broken(format!("an earlier try that ran answers {other:?}"))),
    }
    is("the version", session.record().await?.tokens.newest(), versions[2])
}

async fn only_the_last_four_tokens_are_known(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let versions = session.versions(session.born(&[]).await?, 5).await?;
    let tokens = session.record().await?.tokens;
    is(
        "they are kept",
        versions.iter().map(|token| tokens.contains(*token)).collect(),
        vec![false, false, true, true, true, true],
    )?;
    let with = |own: Token, save: Save| Save { token: Some(own), ..save };
    let newest = session.edit(versions[5], set(&[])).await?;
    match session.save(&with(versions[2], newest.clone())).await? {
        Saved::Saved { before: None, .. } => {}
        other => return Err(Broken(format!("the oldest that is kept answers {other:?}"))),
    }
    let forgotten = with(versions[1], Save { base: versions[0], ..newest });
    match session.save(&forgotten).await? {
        Saved::Moved(record) => is("the moved record", *record, session.record().await?),
        other => Err(Broken(format!("one older than that answers {other:?}"))),
    }
}

async fn a_late_save_writes_nothing(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let versions = session.versions(session.born(&[("a", "1")]).await?, 1).await?;
    let before = session.record().await?;
    let late = Save { not_after: session.too_late().await?, ..session.edit(versions[1], set(&[("a", "2")])).await? };
    is("an edit", session.save(&late).await?, Saved::Late)?;
    let replaced = Save { proof: bench.session()?.id.proof(), base: versions[0], ..late.clone() };
    is("with another proof and an old version", session.save(&replaced).await?, Saved::Late)?;
    is("a touch", session.save(&Save { token: None, ..late }).await?, Saved::Late)?;
    is("the record", session.record().await?, before)
}

async fn a_save_with_another_proof_writes_nothing(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let versions = session.versions(session.born(&[("a", "x")]).await?, 1).await?;
    let before = session.record().await?;
    let edit = session.edit(versions[1], changes(&[("a", Change::Increment(1))])).await?;
    let other = Save { proof: bench.session()?.id.proof(), ..edit };
    is("an edit that could not be made either", session.save(&other).await?, Saved::Replaced)?;
    let old = Save { base: versions[0], ..other.clone() };
    is("on an old version", session.save(&old).await?, Saved::Replaced)?;
    is("a merge", session.save(&Save { merges: true, ..other.clone() }).await?, Saved::Replaced)?;
    is("a touch", session.save(&Save { token: None, ..other }).await?, Saved::Replaced)?;
    is("the record", session.record().await?, before)
}

async fn an_edit_runs_on_its_version_only(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let versions = session.versions(session.born(&[("a", "1")]).await?, 1).await?;
    let before = session.record().await?;
    // Not even asked whether it could be made.
    let old = session.edit(versions[0], changes(&[("a", Change::Remove), ("b", Change::Increment(1))])).await?;
    is("on an old version", session.save(&old).await?, Saved::Moved(Box::new(before.clone())))?;
    let unknown = Save { base: token()?, limit: 0, ..old };
    is("on an unknown one", session.save(&unknown).await?, Saved::Moved(Box::new(before.clone())))?;
    is("the record", session.record().await?, before)?;
    let save = session.edit(versions[1], set(&[("a", "2")])).await?;
    match session.save(&save).await? {
        Saved::Saved { before, at } => {
            is("the version before", before, Some(versions[1]))?;
            is("the time", session.record().await?.seen, at)?;
        }
        other => return Err(Broken(format!("on its own: {other:?}"))),
    }
    session.holds("the fields", &[("a", "2"), ("n", "0")]).await
}

async fn a_merge_runs_on_the_last_four_versions(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let versions = session.versions(session.born(&[]).await?, 3).await?;
    let merge = session.merge(versions[0], set(&[("a", "1")])).await?;
    match session.save(&merge).await? {
        Saved::Saved { before, .. } => is("the version before", before, Some(versions[3]))?,
        other => return Err(Broken(format!("on the fourth: {other:?}"))),
    }
    let before = session.record().await?;
    let too_old = session.merge(versions[0], set(&[("a", "2")])).await?;
    is("on the fifth", session.save(&too_old).await?, Saved::Moved(Box::new(before)))?;
    session.holds("the fields", &[("a", "1"), ("n", "2")]).await
}

async fn a_touch_renews_and_changes_no_version(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let versions = session.versions(session.born(&[("a", "1")]).await?, 1).await?;
    let before = session.record().await?;
    bench.advance(20).await;
    for base in [versions[1], versions[0], token()?] {
        match session.save(&session.touch(base).await?).await? {
            Saved::Saved { before, at } => {
                is("the version that it names", before, Some(versions[1]))?;
                is("seen", session.record().await?.seen, at)?;
            }
            other => return Err(Broken(format!("the touch answers {other:?}"))),
        }
    }
    let after = session.record().await?;
    is("it was seen later", after.seen.since(before.seen) >= Duration::from_millis(20), true)?;
    is("the rest of the record", Record { seen: before.seen, ..after }, before)
}

async fn a_touch_makes_the_same_checks(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    let wish = WishChange { idle: Some(Some(300_000)), remember: None };
    session.saved(&Save { wish, ..session.touch(first).await? }).await?;
    is("its wish", session.record().await?.wishes.idle, Some(300_000))?;
    let proof = bench.session()?.id.proof();
    session.saved(&Save { step: Step::Rotate(proof), ..session.touch(first).await? }).await?;
    is("after a rotation", session.save(&session.touch(first).await?).await?, Saved::Replaced)?;
    is("the version", session.record().await?.tokens.newest(), first)
}

async fn fields_are_set_replaced_and_removed(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("a", "1"), ("b", "2"), ("c", "3")]).await?;
    let all = [
        ("a", Change::Set(bytes("10"))),
        ("b", Change::Remove),
        ("d", Change::Set(bytes("4"))),
        ("not there", Change::Remove),
    ];
    let save = session.edit(first, changes(&all)).await?;
    session.saved(&save).await?;
    session.holds("some changes", &[("a", "10"), ("c", "3"), ("d", "4")]).await?;
    let nothing = session.edit(save.token.unwrap_or(first), Changes::default()).await?;
    session.saved(&nothing).await?;
    session.holds("no change", &[("a", "10"), ("c", "3"), ("d", "4")]).await?;
    is("the version", Some(session.record().await?.tokens.newest()), nothing.token)?;
    let none = [("a", Change::Remove), ("c", Change::Remove), ("d", Change::Remove)];
    session.saved(&session.merge(first, changes(&none)).await?).await?;
    session.holds("none are left", &[]).await
}

async fn a_clear_comes_before_the_other_changes(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("a", "1"), ("b", "2"), ("x", "not a number")]).await?;
    let others = [
        ("a", Change::Increment(5)),
        ("b", Change::Remove),
        ("c", Change::Set(bytes("3"))),
        ("x", Change::Increment(-1)),
    ];
    let save = session.edit(first, Changes { clear: true, ..changes(&others) }).await?;
    session.saved(&save).await?;
    session.holds("a clear with others", &[("a", "5"), ("c", "3"), ("x", "-1")]).await?;
    session.saved(&session.merge(first, Changes { clear: true, fields: Vec::new() }).await?).await?;
    session.holds("a clear alone", &[]).await
}

async fn increments_count(bench: &Bench<'_>) -> Outcome {
    let table = [
        (None, 1, "1"),
        (Some(""), 2, "2"),
        (Some(""), -2, "-2"),
        (Some("0"), 0, "0"),
        (Some("41"), 1, "42"),
        (Some("-1"), 1, "0"),
        (Some("9007199254740993"), 1, "9007199254740994"),
        (Some("9223372036854775806"), 1, "9223372036854775807"),
        (Some("-9223372036854775807"), -1, "-9223372036854775808"),
        (Some("9223372036854775807"), i64::MIN, "-1"),
        (None, i64::MIN, "-9223372036854775808"),
        (None, i64::MAX, "9223372036854775807"),
    ];
    for (old, by, new) in table {
        let session = bench.session()?;
        let first = session.born(&old.map(|old| ("n", old)).into_iter().collect::<Vec<_>>()).await?;
        let save =
            session.edit(first, changes(&[("n", Change::Increment(by)), ("a", Change::Set(bytes("1")))])).await?;
        session.saved(&save).await?;
        session.holds(&format!("{old:?} and {by}"), &[("a", "1"), ("n", new)]).await?;
    }
    Ok(())
}

async fn an_impossible_increment_writes_nothing(bench: &Bench<'_>) -> Outcome {
    let table = [
        ("1.5", 1),
        ("1.0", 1),
        ("1e3", 1),
        ("\"1\"", 1),
        ("null", 1),
        ("+1", 1),
        ("01", 1),
        ("-0", 1),
        (" 1", 1),
        ("1 ", 1),
        ("9223372036854775808", -1),
        ("9223372036854775807", 1),
        ("-9223372036854775808", -1),
    ];
    for (old, by) in table {
        for merges in [false, true] {
            let session = bench.session()?;
            let first = session.born(&[("counted", "1"), ("empty", ""), ("n", old)]).await?;
            let before = session.record().await?;
            let all = [
                ("a", Change::Set(bytes("1"))),
                ("counted", Change::Increment(1)),
                ("empty", Change::Increment(1)),
                ("new", Change::Increment(1)),
                ("n", Change::Increment(by)),
                ("also", Change::Increment(1)),
            ];
            let wish = WishChange { idle: Some(Some(300_000)), remember: None };
            let save = Save { merges, wish, ..session.edit(first, changes(&all)).await? };
            let what = format!("{old:?} and {by}");
            is(&what, session.save(&save).await?, Saved::Refused(bytes("n")))?;
            fields_are(&what, &session.record().await?.fields, &before.fields)?;
            is(&what, session.record().await?, before)?;
        }
    }
    Ok(())
}

/// Only where the caller cannot know the size: on the very version that it read, it has looked itself.
async fn too_many_bytes_on_a_moved_record_write_nothing(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let versions = session.versions(session.born(&[("a", "1234"), ("b", "9")]).await?, 1).await?;
    let before = session.record().await?; // a=1234 b=9 n=0: 9 bytes
    let all = [
        ("a", Change::Set(bytes("12"))),
        ("b", Change::Increment(1)),
        ("c", Change::Set(bytes("1234567"))),
        ("n", Change::Remove),
        ("d", Change::Increment(5)),
    ];
    let merge = session.merge(versions[0], changes(&all)).await?; // a=12 b=10 c=1234567 d=5: 3 + 3 + 8 + 2
    is("one too many", session.save(&Save { limit: 15, ..merge.clone() }).await?, Saved::TooLarge)?;
    is("the record", session.record().await?, before)?;
    let clear = session.merge(versions[0], Changes { clear: true, ..set(&[("c", "1234567")]) }).await?;
    is("after a clear", session.save(&Save { limit: 7, ..clear.clone() }).await?, Saved::TooLarge)?;
    let touch = Save { limit: 0, ..session.touch(versions[0]).await? };
    session.saved(&touch).await?;
    session.saved(&Save { limit: 16, ..merge }).await?;
    session.holds("as many as fit", &[("a", "12"), ("b", "10"), ("c", "1234567"), ("d", "5")]).await?;
    session.saved(&Save { limit: 8, ..clear }).await?;
    session.holds("as many as fit after a clear", &[("c", "1234567")]).await
}

async fn what_is_over_a_new_limit_may_shrink(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("a", "1234567"), ("b", "1234567")]).await?;
    let smaller = Save { limit: 4, ..session.edit(first, changes(&[("a", Change::Remove)])).await? };
    session.saved(&smaller).await?;
    session.holds("what is left", &[("b", "1234567")]).await
}

async fn wishes_change_and_stay(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    let day = 86_400_000;
    let table = [
        (WishChange { idle: Some(Some(300_000)), remember: None }, Some(300_000), false),
        (WishChange { idle: None, remember: Some(Some(day)) }, Some(300_000), true),
        (WishChange { idle: Some(None), remember: None }, None, true),
        (WishChange { idle: Some(Some(400_000)), remember: Some(None) }, Some(400_000), false),
        (WishChange { idle: Some(None), remember: Some(None) }, None, false),
    ];
    for (wish, idle, remembered) in table {
        let at = session.saved(&Save { wish, ..session.touch(first).await? }).await?;
        let what = format!("{wish:?}");
        let wishes = session.record().await?.wishes;
        is(&what, wishes.idle, idle)?;
        is(&what, wishes.remembered.is_some(), remembered)?;
        if let Some(ms) = wish.remember.flatten() {
            is(&what, wishes.remembered, Some(at + Duration::from_millis(ms)))?;
        }
        bench.advance(5).await;
        session.saved(&session.touch(first).await?).await?;
        is("after a touch", session.record().await?.wishes, wishes)?;
    }
    let wish = WishChange { idle: Some(Some(200_000)), remember: None };
    session.saved(&Save { wish, ..session.edit(first, set(&[("a", "1")])).await? }).await?;
    is("with an edit", session.record().await?.wishes.idle, Some(200_000))
}

async fn a_rotation_replaces_the_proof_in_place(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("a", "1")]).await?;
    let before = session.record().await?;
    let new = session.id.rotated(&Random::system())?;
    is("the key of the new id", new.key(&"contract".into()), session.key.clone())?;
    bench.advance(20).await;
    let rotate = Save { step: Step::Rotate(new.proof()), ..session.merge(first, set(&[("b", "2")])).await? };
    let at = session.saved(&rotate).await?;
    let after = session.record().await?;
    is("the proof", after.proof, new.proof())?;
    is("when", after.proved, at)?;
    is("it is later", at > before.proved, true)?;
    is("the creation", after.created, before.created)?;
    let old = session.merge(first, set(&[("c", "3")])).await?;
    is("the old proof", session.save(&old).await?, Saved::Replaced)?;
    let again = Save { step: Step::Rotate(session.id.proof()), ..old.clone() };
    is("a second rotation with it", session.save(&again).await?, Saved::Replaced)?;
    session.saved(&Save { proof: new.proof(), ..old }).await?;
    session.holds("the fields", &[("a", "1"), ("b", "2"), ("c", "3")]).await?;
    is("when, after a save", session.record().await?.proved, at)
}

async fn an_idle_session_goes(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born_with(idle(100), &[("a", "1")]).await?;
    bench.advance(200).await;
    is("load", session.load().await?, None)?;
    is("save", session.save(&session.edit(first, set(&[("a", "2")])).await?).await?, Saved::Gone)?;
    is("end", session.end(&session.destroy().await?).await?, Ended::Gone)?;
    session.born(&[("b", "2")]).await?;
    session.holds("a new one at the key", &[("b", "2")]).await
}

/// Where the time is a server's, a busy machine may be late for the first touch: then there is more time for a second try.
async fn a_touched_session_stays(bench: &Bench<'_>) -> Outcome {
    match stays_by_touches(bench, 500).await {
        Err(Broken(_)) => stays_by_touches(bench, 2000).await,
        stays => stays,
    }
}

async fn stays_by_touches(bench: &Bench<'_>, ms: u64) -> Outcome {
    let session = bench.session()?;
    let life = idle(ms);
    let first = session.born_with(life, &[]).await?;
    bench.advance(ms * 7 / 10).await;
    session.saved(&Save { life, ..session.touch(first).await? }).await?;
    bench.advance(ms * 7 / 10).await;
    session.saved(&Save { life, ..session.merge(first, Changes::default()).await? }).await?;
    bench.advance(ms * 7 / 10).await;
    session.record().await?;
    bench.advance(ms * 8 / 10).await;
    is("load", session.load().await?, None)
}

async fn no_touch_outlives_the_absolute_deadline(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let life = Life { absolute: 400, ..LONG };
    let first = session.born_with(life, &[]).await?;
    bench.advance(200).await;
    session.saved(&Save { life, ..session.touch(first).await? }).await?;
    bench.advance(300).await;
    is("load", session.load().await?, None)
}

async fn a_session_s_own_idle_timeout_counts(bench: &Bench<'_>) -> Outcome {
    let (shorter, longer) = (bench.session()?, bench.session()?);
    let wish = |ms| WishChange { idle: Some(Some(ms)), remember: None };
    shorter.create(&Create { wish: wish(100), ..shorter.fresh(&[]).await? }).await?;
    longer.create(&Create { wish: wish(300_000), life: idle(100), ..longer.fresh(&[]).await? }).await?;
    bench.advance(200).await;
    is("a shorter one", shorter.load().await?, None)?;
    let version = longer.record().await?.tokens.newest();
    longer.saved(&Save { life: idle(100), ..longer.touch(version).await? }).await?;
    let back =
        Save { life: idle(100), wish: WishChange { idle: Some(None), remember: None }, ..longer.touch(version).await? };
    longer.saved(&back).await?;
    bench.advance(200).await;
    is("the layer's again", longer.load().await?, None)
}

async fn a_remembered_session_stays(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let life = Life { idle: 200, absolute: 200, touch: 10 };
    let first = session.born_with(life, &[]).await?;
    let remember = |ms| WishChange { idle: None, remember: Some(Some(ms)) };
    session.saved(&Save { life, wish: remember(60_000), ..session.touch(first).await? }).await?;
    bench.advance(300).await;
    session.saved(&Save { life, ..session.touch(first).await? }).await?;
    session.saved(&Save { life, wish: remember(100), ..session.touch(first).await? }).await?;
    bench.advance(200).await;
    is("after that", session.load().await?, None)
}

async fn a_shorter_policy_reaches_living_sessions(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    bench.advance(200).await;
    let save = Save { life: idle(100), ..session.edit(first, set(&[("a", "1")])).await? };
    is("an edit", session.save(&save).await?, Saved::Gone)?;
    is("one that ran", session.save(&Save { token: Some(first), ..save.clone() }).await?, Saved::Gone)?;
    is("a touch", session.save(&Save { token: None, ..save.clone() }).await?, Saved::Gone)?;
    let absolute = Life { absolute: 100, ..LONG };
    is("by the absolute timeout", session.save(&Save { life: absolute, ..save }).await?, Saved::Gone)?;
    session.holds("the fields", &[]).await
}

async fn an_end_leaves_a_tombstone(bench: &Bench<'_>) -> Outcome {
    for reason in [Reason::Destroyed, Reason::Expired] {
        let session = bench.session()?;
        session.born(&[("a", "1")]).await?;
        let end = End { reason, ..session.destroy().await? };
        is("the answer", session.end(&end).await?, Ended::Ended)?;
        let tombstone = session.tombstone().await?;
        is("the reason", tombstone.reason, reason)?;
        is("the time", session.now().await?.since(tombstone.at) < Duration::from_secs(5), true)?;
        is("again", session.end(&end).await?, Ended::Already(tombstone))?;
        let other = End { not_after: session.too_late().await?, whose: Whose::Expired(LONG), ..end };
        is("again, late", session.end(&other).await?, Ended::Already(tombstone))?;
    }
    Ok(())
}

async fn an_end_of_nothing_is_gone(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let end = session.destroy().await?;
    let late = End { not_after: session.too_late().await?, ..end.clone() };
    is("in time", session.end(&end).await?, Ended::Gone)?;
    is("late", session.end(&late).await?, Ended::Gone)?;
    is("load", session.load().await?, None)
}

async fn a_late_end_writes_nothing(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    session.born(&[("a", "1")]).await?;
    let late = End { not_after: session.too_late().await?, ..session.destroy().await? };
    is("the answer", session.end(&late).await?, Ended::Late)?;
    is("by expiry", session.end(&End { whose: Whose::Expired(LONG), ..late }).await?, Ended::Late)?;
    session.holds("the fields", &[("a", "1")]).await
}

async fn an_end_with_a_replaced_proof_ends_nothing(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("a", "1")]).await?;
    let before = session.destroy().await?;
    let new = session.id.rotated(&Random::system())?.proof();
    session.saved(&Save { step: Step::Rotate(new), ..session.edit(first, Changes::default()).await? }).await?;
    is("in time", session.end(&before).await?, Ended::Others)?;
    let late = End { not_after: session.too_late().await?, ..before.clone() };
    is("late", session.end(&late).await?, Ended::Late)?;
    session.holds("the fields", &[("a", "1")]).await?;
    let with_the_new = End { whose: Whose::Nobodys(new), ..before.clone() };
    is("with the new proof", session.end(&with_the_new).await?, Ended::Ended)?;
    let tombstone = session.tombstone().await?;
    is("after the end", session.end(&before).await?, Ended::Already(tombstone))
}

async fn an_end_by_expiry_spares_who_was_renewed(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("a", "1")]).await?;
    bench.advance(1000).await;
    let by = |life, end: End| End { reason: Reason::Expired, whose: Whose::Expired(life), ..end };
    let end = session.destroy().await?;
    is("alive", session.end(&by(LONG, end.clone())).await?, Ended::Alive)?;
    session.saved(&session.touch(first).await?).await?;
    is("renewed", session.end(&by(idle(900), end.clone())).await?, Ended::Alive)?;
    session.holds("the fields", &[("a", "1")]).await?;
    bench.advance(200).await;
    is("past its deadline", session.end(&by(idle(100), end)).await?, Ended::Ended)?;
    is("the reason", session.tombstone().await?.reason, Reason::Expired)
}

#[cfg(test)]
mod tests {
    use redis_session_core::{Clock, MemoryStore};

    use super::*;

    #[tokio::test]
    async fn the_memory_store_keeps_the_contract() {
        let clock = Clock::manual();
        let store = MemoryStore::new().clock(clock.clone());
        store_contract(store, |time| {
            clock.advance(time);
            std::future::ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn the_memory_store_keeps_the_contract_on_the_system_s_clock() {
        store_contract(MemoryStore::new(), tokio::time::sleep).await;
    }
}
