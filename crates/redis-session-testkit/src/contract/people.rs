//! The part of the contract that is about users: logins and timed renewals in a record, and the index of a user's sessions.

use redis_session_core::{
    Doom, Doomed, Enter, Entered, Index, Level, LogIn, Login, Previous, Prolong, Prolonged, ReplacedBy, SessionHandle,
    Standing, User, UserKey, Which,
};

use super::*;

pub(super) const CASES: &[(&str, Case)] = cases![
    a_login_comes_with_a_create,
    a_login_replaces_the_proof_and_keeps_it_for_a_second_click,
    a_second_click_is_good_for_nothing_else,
    a_login_of_the_same_user_leaves_no_second_click,
    a_label_stays_with_its_user,
    a_login_is_made_once,
    users_and_labels_of_any_text_read_back,
    a_renewal_keeps_the_old_proof_good,
    a_renewal_is_the_same_for_all_who_make_it,
    a_renewed_proof_is_seen_once,
    a_save_that_does_not_renew_leaves_the_deadline,
    an_end_names_its_user,
    an_end_of_a_revocation_marks_what_is_not_there,
    a_session_is_ended_by_the_arrival_of_its_login,
    a_glance_shows_all_but_the_fields,
    an_entry_is_listed_until_its_time,
    an_entry_never_becomes_shorter,
    an_entered_session_that_was_doomed_stays_so,
    a_revocation_refuses_what_is_older,
    a_doom_of_one_refuses_nobody,
    who_ends_the_others_must_be_listed_himself,
    a_cap_dooms_those_that_would_expire_first,
    a_prolonged_entry_must_be_there,
    an_entry_instead_of_another_takes_its_place,
    late_steps_of_an_index_write_nothing,
    what_leaves_is_gone_and_its_list_with_it,
    every_session_of_a_realm_is_on_some_page,
];

fn ada() -> Result<User, Broken> {
    Ok(User::new("ada: {lovelace}\n*")?)
}

fn login(user: User) -> LogIn {
    LogIn { user, level: Level::FULL, label: None, waited: Duration::from_millis(5) }
}

impl Session<'_> {
    /// A login from this version, by a new proof.
    async fn log_in(&self, base: Token, user: User) -> Result<(Save, SessionId), Broken> {
        let id = self.id.rotated(&Random::system())?;
        let step = Step::LogIn(id.proof(), login(user));
        Ok((Save { step, ..self.edit(base, set(&[("cart", "[]")])).await? }, id))
    }

    async fn renew(&self, base: Token) -> Result<(Save, SessionId), Broken> {
        let id = self.id.rotated(&Random::system())?;
        Ok((Save { step: Step::Renew(id.proof()), ..self.touch(base).await? }, id))
    }

    async fn end_of(&self, user: User) -> Result<End, Broken> {
        Ok(End { reason: Reason::LoggedOut, whose: Whose::Users(user), ..self.destroy().await? })
    }
}

async fn a_login_comes_with_a_create(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let label = Some("her phone".to_owned());
    let login = LogIn { level: Level(3), label: label.clone(), ..login(ada()?) };
    let create = Create { login: Some(login.clone()), ..session.fresh(&[("a", "1")]).await? };
    let Created::Created { at } = session.create(&create).await? else {
        return Err(Broken("a create with a login is not made".into()));
    };
    let record = session.record().await?;
    let arrived = at - login.waited;
    is("the login", record.login, Some(Box::new(Login { user: ada()?, at, arrived, level: Level(3), label })))?;
    is("the old proof", record.previous, None)?;
    session.holds("the fields", &[("a", "1")]).await
}

async fn a_login_replaces_the_proof_and_keeps_it_for_a_second_click(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("a", "1")]).await?;
    let (log_in, new) = session.log_in(first, ada()?).await?;
    let at = session.saved(&log_in).await?;
    let record = session.record().await?;
    is("the proof", (record.proof, record.proved), (new.proof(), at))?;
    is("the user", record.user(), Some(&ada()?))?;
    let previous = Previous { proof: session.id.proof(), by: ReplacedBy::Login, at };
    is("the old proof", record.previous, Some(previous))?;
    session.holds("the fields", &[("a", "1"), ("cart", "[]")]).await?;
    let (again, _) = session.log_in(first, ada()?).await?;
    is("a second click", session.save(&again).await?, Saved::LoggedInAlready)?;
    is("nothing was written", session.record().await?, record)?;
    let minute = Duration::from_secs(60);
    let much_later = Step::LogIn(new.proof(), LogIn { waited: Duration::ZERO, ..login(ada()?) });
    // A click whose request is older than the login has no age to count.
    let much_older = Step::LogIn(new.proof(), LogIn { waited: 10 * minute, ..login(ada()?) });
    for step in [much_later, much_older] {
        is("a third", session.save(&Save { step, ..again.clone() }).await?, Saved::LoggedInAlready)?;
    }
    Ok(())
}

async fn a_second_click_is_good_for_nothing_else(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    let (log_in, _) = session.log_in(first, ada()?).await?;
    session.saved(&log_in).await?;
    let old = session.merge(first, set(&[("a", "1")])).await?;
    let proof = session.id.rotated(&Random::system())?.proof();
    for (what, step) in [
        ("a save", Step::Keep),
        ("a rotation", Step::Rotate(proof)),
        ("a renewal", Step::Renew(proof)),
        ("another user's login", Step::LogIn(proof, login(User::new("bob")?))),
    ] {
        is(what, session.save(&Save { step, ..old.clone() }).await?, Saved::Replaced)?;
    }
    is("a touch", session.save(&session.touch(first).await?).await?, Saved::Replaced)?;
    is("an end", session.end(&session.destroy().await?).await?, Ended::Others)?;
    session.holds("the fields", &[("cart", "[]")]).await
}

async fn a_login_of_the_same_user_leaves_no_second_click(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    let (log_in, new) = session.log_in(first, ada()?).await?;
    session.saved(&log_in).await?;
    let step_up = LogIn { level: Level(2), ..login(ada()?) };
    let newest = new.rotated(&Random::system())?;
    let base = session.record().await?.tokens.newest();
    let step = Step::LogIn(newest.proof(), step_up);
    let at = session.saved(&Save { step, proof: new.proof(), ..session.edit(base, set(&[])).await? }).await?;
    let record = session.record().await?;
    is("the proof", (record.proof, record.proved, record.previous), (newest.proof(), at, None))?;
    is("the level", record.login.map(|login| login.level), Some(Level(2)))?;
    let (again, _) = session.log_in(first, ada()?).await?;
    is("with the oldest proof", session.save(&again).await?, Saved::Replaced)?;
    is("with the one before", session.save(&Save { proof: new.proof(), ..again }).await?, Saved::Replaced)
}

/// The second factor does not say again which device it is.
async fn a_label_stays_with_its_user(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    session.born(&[]).await?;
    let mut id = session.id.clone();
    let labels = [
        (ada()?, Some("her phone"), Some("her phone")),
        (ada()?, None, Some("her phone")),
        (ada()?, Some("her tablet"), Some("her tablet")),
        (User::new("bob")?, None, None),
    ];
    for (user, label, kept) in labels {
        let (proof, new) = (id.proof(), id.rotated(&Random::system())?);
        let step = Step::LogIn(new.proof(), LogIn { label: label.map(str::to_owned), ..login(user) });
        let base = session.record().await?.tokens.newest();
        session.saved(&Save { step, proof, ..session.edit(base, set(&[])).await? }).await?;
        let login = session.record().await?.login;
        is("the label", login.and_then(|login| login.label), kept.map(str::to_owned))?;
        id = new;
    }
    Ok(())
}

async fn a_login_is_made_once(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    let (log_in, new) = session.log_in(first, ada()?).await?;
    let at = session.saved(&log_in).await?;
    let record = session.record().await?;
    bench.advance(20).await;
    is("the same again", session.save(&log_in).await?, Saved::Saved { before: Some(first), at })?;
    is("the record", session.record().await?, record.clone())?;
    is("its proof", (record.proof, record.proved), (new.proof(), at))
}

async fn users_and_labels_of_any_text_read_back(bench: &Bench<'_>) -> Outcome {
    let long = "x".repeat(10_000);
    let texts = ["1", " ", "a b", " a ", "a\0b", "\n", "\r\n", "-", "%s %d", "é\u{202e}", "{}", "a:b*?[", &long];
    for user in texts {
        for label in [None, Some(user.to_owned())] {
            let session = bench.session()?;
            let first = session.born(&[]).await?;
            let new = session.id.rotated(&Random::system())?.proof();
            let step = Step::LogIn(new, LogIn { label: label.clone(), ..login(User::new(user)?) });
            session.saved(&Save { step, ..session.merge(first, set(&[])).await? }).await?;
            let Some(login) = session.record().await?.login else { return Err(Broken("nobody is logged in".into())) };
            is("the user", (login.user.as_str(), &login.label), (user, &label))?;
            is(
                "another's end",
                session.end(&session.end_of(User::new(format!("{user}x"))?).await?).await?,
                Ended::Others,
            )?;
            is("his own", session.end(&session.end_of(User::new(user)?).await?).await?, Ended::Ended)?;
        }
    }
    Ok(())
}

async fn a_renewal_keeps_the_old_proof_good(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[("n", "1")]).await?;
    let proved = session.record().await?.proved;
    bench.advance(20).await;
    let (renew, new) = session.renew(first).await?;
    let at = session.saved(&renew).await?;
    let record = session.record().await?;
    let previous = Some(Previous { proof: session.id.proof(), by: ReplacedBy::Renewal, at });
    is("the proofs", (record.proof, record.previous, record.proved), (new.proof(), previous, proved))?;
    is("the version", record.tokens.newest(), first)?;
    session.saved(&session.merge(first, changes(&[("n", Change::Increment(1))])).await?).await?;
    session.saved(&Save { proof: new.proof(), ..session.merge(first, set(&[("a", "2")])).await? }).await?;
    session.holds("the fields", &[("n", "2"), ("a", "2")]).await?;
    let rotate = Step::Rotate(session.id.rotated(&Random::system())?.proof());
    let by_the_old = Save { step: rotate, ..session.touch(first).await? };
    is("a rotation by the old one", session.save(&by_the_old).await?, Saved::Replaced)?;
    session.saved(&Save { proof: new.proof(), ..by_the_old }).await?;
    is("after a rotation", session.save(&session.touch(first).await?).await?, Saved::Replaced)?;
    is("nothing of it is left", session.record().await?.previous, None)
}

async fn a_renewal_is_the_same_for_all_who_make_it(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    let (renew, new) = session.renew(first).await?;
    session.saved(&renew).await?;
    let record = session.record().await?;
    session.saved(&renew).await?;
    let again = session.record().await?;
    is("the proofs", (again.proof, again.previous), (record.proof, record.previous))?;
    is("whose they are", record.proof, new.proof())?;
    let (other, _) = session.renew(first).await?;
    is("another one", session.save(&other).await?, Saved::Replaced)
}

async fn a_renewed_proof_is_seen_once(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    let (renew, new) = session.renew(first).await?;
    session.saved(&renew).await?;
    bench.advance(20).await;
    session.saved(&Save { step: Step::Seen, ..session.touch(first).await? }).await?;
    let by = |record: &Record| record.previous.map(|previous| previous.by);
    is("by the old one", by(&session.record().await?), Some(ReplacedBy::Renewal))?;
    let seen = Save { step: Step::Seen, proof: new.proof(), ..session.touch(first).await? };
    let at = session.saved(&seen).await?;
    let record = session.record().await?;
    is(
        "by the new one",
        record.previous.map(|previous| (previous.by, previous.at)),
        Some((ReplacedBy::SeenRenewal, at)),
    )?;
    bench.advance(20).await;
    session.saved(&seen).await?;
    is("once more", session.record().await?.previous, record.previous)?;
    // Who loaded it while it was good may still write.
    session.saved(&session.merge(first, set(&[("a", "1")])).await?).await?;
    session.holds("the fields", &[("a", "1")]).await
}

async fn a_save_that_does_not_renew_leaves_the_deadline(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    let seen = session.record().await?.seen;
    bench.advance(20).await;
    let save = Save { renews: false, ..session.merge(first, set(&[("a", "1")])).await? };
    session.saved(&save).await?;
    is("seen", session.record().await?.seen, seen)?;
    session.holds("the fields", &[("a", "1")]).await
}

async fn an_end_names_its_user(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    is("of nobody's", session.end(&session.end_of(ada()?).await?).await?, Ended::Nobodys)?;
    let (log_in, new) = session.log_in(first, ada()?).await?;
    let anonymous = session.destroy().await?;
    session.saved(&log_in).await?;
    is("of whom it was nobody's", session.end(&anonymous).await?, Ended::Others)?;
    let with_the_new = End { whose: Whose::Nobodys(new.proof()), ..anonymous };
    is("likewise, with the new proof", session.end(&with_the_new).await?, Ended::Others)?;
    is("of another", session.end(&session.end_of(User::new("bob")?).await?).await?, Ended::Others)?;
    is("of hers", session.end(&session.end_of(ada()?).await?).await?, Ended::Ended)?;
    is("the reason", session.tombstone().await?.reason, Reason::LoggedOut)
}

async fn an_end_of_a_revocation_marks_what_is_not_there(bench: &Bench<'_>) -> Outcome {
    for reason in [Reason::Revoked, Reason::Cap] {
        let session = bench.session()?;
        let end = End { reason, ..session.end_of(ada()?).await? };
        let late = End { not_after: session.too_late().await?, ..end.clone() };
        is("late", session.end(&late).await?, Ended::Late)?;
        is("the answer", session.end(&end).await?, Ended::Gone)?;
        is("the reason", session.tombstone().await?.reason, reason)?;
        is("a create", session.create(&session.fresh(&[]).await?).await?, Created::Exists)?;
    }
    for reason in [Reason::LoggedOut, Reason::Refused, Reason::OtherUser] {
        let session = bench.session()?;
        is("another reason", session.end(&End { reason, ..session.end_of(ada()?).await? }).await?, Ended::Gone)?;
        is("leaves nothing", session.load().await?, None)?;
    }
    Ok(())
}

async fn a_session_is_ended_by_the_arrival_of_its_login(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    let first = session.born(&[]).await?;
    let destroy = session.destroy().await?;
    let end = |time| End { reason: Reason::Revoked, whose: Whose::ArrivedBefore(time), ..destroy.clone() };
    is("of nobody's", session.end(&end(Time::MAX)).await?, Ended::Nobodys)?;
    let (log_in, _) = session.log_in(first, ada()?).await?;
    let at = session.saved(&log_in).await?;
    let arrived = at - login(ada()?).waited;
    is("at that time", session.end(&end(arrived)).await?, Ended::Others)?;
    is("after it", session.end(&end(arrived + Duration::from_millis(1))).await?, Ended::Ended)
}

async fn a_glance_shows_all_but_the_fields(bench: &Bench<'_>) -> Outcome {
    let session = bench.session()?;
    is("of nothing", session.store.glance(&session.key).await?, None)?;
    let login = LogIn { label: Some("her phone".to_owned()), ..login(ada()?) };
    session.create(&Create { login: Some(login), ..session.fresh(&[]).await? }).await?;
    is("without fields", session.store.glance(&session.key).await?, session.load().await?)?;
    session.end(&session.end_of(ada()?).await?).await?;
    is("of a tombstone", session.store.glance(&session.key).await?, session.load().await?)
}

/// The list of one user, where the store has lists.
struct List<'a> {
    index: &'a dyn Index,
    user: UserKey,
    store: &'a dyn Store,
}

impl<'a> Bench<'a> {
    /// `None`: this store has no index, and nothing to show.
    fn list(&self) -> Result<Option<List<'a>>, Broken> {
        let Some(index) = self.store.index() else { return Ok(None) };
        let random = self.session()?.key.handle();
        let user = User::new(format!("user {random}"))?.key(&"contract".into());
        Ok(Some(List { index, user, store: self.store }))
    }
}

const LIVES: Duration = Duration::from_secs(600);

impl List<'_> {
    fn session(&self) -> Result<SessionHandle, Broken> {
        Ok(SessionId::random(&Random::system())?.key(&"contract".into()).handle())
    }

    fn in_time(&self) -> Time {
        self.store.now().map_or(Time::MAX, |now| now + Duration::from_secs(30))
    }

    fn too_late(&self) -> Time {
        self.store.now().map_or(Time::default(), |now| now - Duration::from_secs(30))
    }

    fn entry(&self, session: SessionHandle) -> Enter {
        Enter { session, life: LIVES, cap: None, age: Duration::ZERO, instead_of: None, not_after: self.in_time() }
    }

    async fn enter(&self, enter: &Enter) -> Result<Entered, Broken> {
        Ok(self.index.enter(&self.user, enter).await?)
    }

    /// Enters a new session, which must succeed.
    async fn entered(&self) -> Result<SessionHandle, Broken> {
        let session = self.session()?;
        match self.enter(&self.entry(session)).await? {
            Entered::Entered { .. } => Ok(session),
            other => Err(Broken(format!("a session is not entered but {other:?}"))),
        }
    }

    async fn prolong(&self, session: SessionHandle, life: Duration, add: bool) -> Result<Prolonged, Broken> {
        let prolong = Prolong { session, life, add, not_after: self.in_time() };
        Ok(self.index.prolong(&self.user, &prolong).await?)
    }

    async fn doom(&self, which: Which) -> Result<Doomed, Broken> {
        let mut doomed = self.index.doom(&self.user, &Doom { which, not_after: self.in_time() }).await?;
        if let Doomed::Doomed(sessions) = &mut doomed {
            sessions.sort();
        }
        Ok(doomed)
    }

    async fn sessions(&self) -> Result<Vec<SessionHandle>, Broken> {
        let mut sessions = self.index.sessions(&self.user).await?;
        sessions.sort();
        Ok(sessions)
    }

    async fn standing(&self, session: SessionHandle) -> Result<Option<Standing>, Broken> {
        Ok(self.index.standing(&self.user, session).await?)
    }
}

fn sorted<const N: usize>(mut sessions: [SessionHandle; N]) -> Vec<SessionHandle> {
    sessions.sort();
    sessions.to_vec()
}

async fn an_entry_is_listed_until_its_time(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    is("nobody", list.sessions().await?, vec![])?;
    let session = list.session()?;
    is("not there", list.standing(session).await?, None)?;
    let entry = Enter { life: Duration::from_millis(200), ..list.entry(session) };
    is("entered", list.enter(&entry).await?, Entered::Entered { since_revoked: None, doomed: vec![] })?;
    is("listed", (list.sessions().await?, list.standing(session).await?), (vec![session], Some(Standing::Listed)))?;
    let other = list.entered().await?;
    bench.advance(300).await;
    is("the other one", list.sessions().await?, vec![other])?;
    is("prolonged", list.prolong(session, LIVES, false).await?, Prolonged::Missing)
}

async fn an_entry_never_becomes_shorter(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let session = list.entered().await?;
    let short = Duration::from_millis(100);
    list.enter(&Enter { life: short, ..list.entry(session) }).await?;
    is("prolonged", list.prolong(session, short, false).await?, Prolonged::Prolonged)?;
    bench.advance(200).await;
    is("listed", list.standing(session).await?, Some(Standing::Listed))
}

async fn an_entered_session_that_was_doomed_stays_so(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let session = list.entered().await?;
    is("the doom", list.doom(Which::Only(session)).await?, Doomed::Doomed(vec![session]))?;
    is("again", list.doom(Which::Only(session)).await?, Doomed::Doomed(vec![session]))?;
    is("how it stands", list.standing(session).await?, Some(Standing::Doomed))?;
    is("the list", list.sessions().await?, vec![])?;
    is("an enter", list.enter(&list.entry(session)).await?, Entered::Doomed)?;
    is("a prolong", list.prolong(session, LIVES, true).await?, Prolonged::Doomed)?;
    let other = list.session()?;
    let wanted = Entered::Entered { since_revoked: None, doomed: vec![session] };
    is("another's enter", list.enter(&list.entry(other)).await?, wanted)?;
    list.index.leave(&list.user, &[session]).await?;
    is("after it has left", list.standing(session).await?, None)
}

async fn a_revocation_refuses_what_is_older(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let (one, two) = (list.entered().await?, list.entered().await?);
    is("the doom", list.doom(Which::All).await?, Doomed::Doomed(sorted([one, two])))?;
    bench.advance(300).await;
    let session = list.session()?;
    let old = Enter { age: Duration::from_secs(30), ..list.entry(session) };
    is("of before", list.enter(&old).await?, Entered::Revoked)?;
    is("which wrote nothing", list.standing(session).await?, None)?;
    let young = Enter { age: Duration::from_millis(20), ..old };
    match list.enter(&young).await? {
        Entered::Entered { since_revoked: Some(since), .. } => {
            is("since when", since >= Duration::from_millis(250) && since < Duration::from_secs(20), true)
        }
        other => Err(Broken(format!("of after: {other:?}"))),
    }
}

async fn a_doom_of_one_refuses_nobody(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let session = list.entered().await?;
    list.doom(Which::Only(session)).await?;
    is("a session that is not there", list.doom(Which::Only(list.session()?)).await?, Doomed::Missing)?;
    let old = Enter { age: Duration::from_secs(30), ..list.entry(list.session()?) };
    let wanted = Entered::Entered { since_revoked: None, doomed: vec![session] };
    is("an old login", list.enter(&old).await?, wanted)
}

async fn who_ends_the_others_must_be_listed_himself(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let (one, two, three) = (list.entered().await?, list.entered().await?, list.entered().await?);
    is("not listed", list.doom(Which::AllBut(list.session()?)).await?, Doomed::Missing)?;
    is("nothing is doomed", list.sessions().await?, sorted([one, two, three]))?;
    is("listed", list.doom(Which::AllBut(one)).await?, Doomed::Doomed(sorted([two, three])))?;
    is("doomed", list.doom(Which::AllBut(two)).await?, Doomed::Yourself)?;
    is("who is left", list.sessions().await?, vec![one])
}

async fn a_cap_dooms_those_that_would_expire_first(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let mut sessions = Vec::new();
    for minutes in [4, 2, 3, 1] {
        let entry = Enter { life: Duration::from_secs(60 * minutes), ..list.entry(list.session()?) };
        list.enter(&entry).await?;
        sessions.push(entry.session);
    }
    list.doom(Which::Only(sessions[1])).await?;
    let new = list.session()?;
    let capped = Enter { cap: Some(2), life: Duration::from_secs(1), ..list.entry(new) };
    let Entered::Entered { mut doomed, .. } = list.enter(&capped).await? else {
        return Err(Broken("a login over the cap is not entered".into()));
    };
    doomed.sort();
    is("who goes", doomed, sorted([sessions[1], sessions[2], sessions[3]]))?;
    is("who stays", list.sessions().await?, sorted([sessions[0], new]))?;
    let again = Enter { cap: Some(2), ..list.entry(new) };
    list.enter(&again).await?;
    is("the same again", list.sessions().await?, sorted([sessions[0], new]))?;
    list.enter(&Enter { cap: Some(0), ..list.entry(new) }).await?;
    is("a cap of none leaves the new one", list.sessions().await?, vec![new])
}

async fn a_prolonged_entry_must_be_there(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let session = list.session()?;
    is("not there", list.prolong(session, LIVES, false).await?, Prolonged::Missing)?;
    is("nothing was written", list.standing(session).await?, None)?;
    is("added", list.prolong(session, Duration::from_millis(300), true).await?, Prolonged::Prolonged)?;
    is("prolonged", list.prolong(session, LIVES, false).await?, Prolonged::Prolonged)?;
    bench.advance(400).await;
    is("listed", list.sessions().await?, vec![session])
}

async fn an_entry_instead_of_another_takes_its_place(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let (stale, other) = (list.entered().await?, list.entered().await?);
    let new = list.session()?;
    let enter = Enter { instead_of: Some(stale), cap: Some(2), ..list.entry(new) };
    is("entered", list.enter(&enter).await?, Entered::Entered { since_revoked: None, doomed: vec![] })?;
    is("the list", list.sessions().await?, sorted([other, new]))
}

async fn late_steps_of_an_index_write_nothing(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let (session, new) = (list.entered().await?, list.session()?);
    let not_after = list.too_late();
    let enter = Enter { not_after, instead_of: Some(session), ..list.entry(new) };
    is("an enter", list.enter(&enter).await?, Entered::Late)?;
    let prolong = Prolong { session: new, life: LIVES, add: true, not_after };
    is("a prolong", list.index.prolong(&list.user, &prolong).await?, Prolonged::Late)?;
    is("a doom", list.index.doom(&list.user, &Doom { which: Which::All, not_after }).await?, Doomed::Late)?;
    is("the list", list.sessions().await?, vec![session])
}

async fn what_leaves_is_gone_and_its_list_with_it(bench: &Bench<'_>) -> Outcome {
    let Some(list) = bench.list()? else { return Ok(()) };
    let (one, two, three) = (list.entered().await?, list.entered().await?, list.entered().await?);
    list.index.leave(&list.user, &[one, two, list.session()?]).await?;
    is("the list", list.sessions().await?, vec![three])?;
    list.index.leave(&list.user, &[]).await?;
    list.index.leave(&list.user, &[three]).await?;
    is("the empty list", list.sessions().await?, vec![])
}

async fn every_session_of_a_realm_is_on_some_page(bench: &Bench<'_>) -> Outcome {
    let realm =
        format!("pages-{}", bench.session()?.key.handle().to_string()[..8].to_lowercase().replace('-', "_")).into();
    let mut wanted = Vec::new();
    for _ in 0..50 {
        let id = SessionId::random(&Random::system())?;
        let session = Session { store: bench.store, key: id.key(&realm), id };
        session.create(&session.fresh(&[("a", "1")]).await?).await?;
        wanted.push(session.key);
    }
    let (mut found, mut from) = (Vec::new(), None);
    loop {
        let page = match bench.store.page(&realm, from).await {
            Err(error) if error.is_config() => return Ok(()),
            page => page?,
        };
        found.extend(page.sessions);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    found.sort();
    found.dedup();
    wanted.sort();
    is("all of them", found, wanted)
}
