//! What an application does with the sessions of a user, within a request and outside of one: list them, end them.

use std::fmt;
use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum_core::extract::FromRequestParts;
use http::request::Parts;
use redis_session_core::{
    Doom, Doomed, Durability, Ended, Found, Level, Login, Page, Reason, Record, SessionHandle, SessionKey, Stored,
    Time, User, Waited, Which, Whose,
};
use tokio::time::Instant;

use crate::error::Error;
use crate::events::Event;
use crate::layer::{Main, RedisSessionLayer, Settings};
use crate::listing::{self, AT_ONCE, Ending, Listed, Need};
use crate::session::{Session, Untyped, handle_of};
use crate::tries::{rest, time_of_store};

/// How exactly a list tells when a session was last seen: enough to know a device, too little to follow a person.
const SEEN_WITHIN: Duration = Duration::from_secs(5 * 60);
/// What the clocks of two Redis servers may differ by.
const CLOCK_MARGIN: Duration = Duration::from_secs(5);
/// The oldest that a login under way may be, and a deadline more.
const LOGINS_TAKE: Duration = Duration::from_secs(60);
/// More ends that fail are no bad luck of single records: the store fails.
const MOST_FAILURES: usize = 1_000;

/// The sessions of users: for "your devices", "log out everywhere else", a changed password, an administrator.
///
/// A list that Redis has lost (by an eviction, or a failover before it was replicated) is whole again after one touch
/// interval of traffic; until then all of these miss the sessions that were not touched since.
///
/// An extractor in handlers; elsewhere, in a worker or on a command line, [`RedisSessionLayer::sessions`]. Users are
/// named as they were in [`log_in`](Session::log_in).
///
/// ```
/// use axum::response::{Html, IntoResponse};
/// use redis_session::{Error, Session, Sessions};
///
/// async fn devices(session: Session, sessions: Sessions) -> Result<Html<String>, Error> {
///     let Some(user) = session.user::<u64>()? else { return Ok(Html("please log in".into())) };
///     let mut page = String::new();
///     for device in sessions.list(user).await? {
///         let (label, this) = (device.label().unwrap_or("?"), Some(device.handle()) == session.handle());
///         page += &format!("<li>{label}{}</li>", if this { " (this one)" } else { "" }); // escape labels in earnest
///     }
///     Ok(Html(page))
/// }
///
/// async fn log_out_elsewhere(session: Session, sessions: Sessions) -> Result<String, Error> {
///     Ok(format!("{} others are logged out", sessions.revoke_others(&session).await?))
/// }
/// # use redis_session::{KeyRing, MemoryStore, RedisSessionLayer};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
/// let sessions: Sessions = layer.sessions(); // in a worker
/// assert_eq!(sessions.revoke_all(7).await?, 0);
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
pub struct Sessions<L = Main> {
    settings: Arc<Settings>,
    durability: Durability,
    marker: PhantomData<fn() -> L>,
}

/// A session in the list of a user's.
#[derive(Clone, Debug)]
pub struct Listing {
    handle: SessionHandle,
    created: Time,
    seen: Time,
    login: Login,
}

impl Listing {
    /// Names it, for [`Sessions::revoke`]: in a form on a page, say. It is worth nothing as a cookie.
    pub fn handle(&self) -> SessionHandle {
        self.handle
    }

    /// When its user logged in.
    pub fn created(&self) -> SystemTime {
        system(self.created)
    }

    /// When it was last seen, to five minutes.
    pub fn last_seen(&self) -> SystemTime {
        let step = SEEN_WITHIN.as_millis() as u64;
        system(Time::from_millis(self.seen.as_millis() / step * step))
    }

    /// What the application called it at its login. `None`: nothing.
    pub fn label(&self) -> Option<&str> {
        self.login.label.as_deref()
    }

    /// How well its user has proved who he is.
    pub fn level(&self) -> Level {
        self.login.level
    }
}

fn system(time: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(time.as_millis())
}

/// How far [`Sessions::revoke_everybody`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Which of the two passes over all sessions this is.
    pub pass: u8,
    /// How many sessions were looked at.
    pub looked_at: u64,
    /// How many of them were ended.
    pub ended: u64,
}

/// What is kept of one session of a user, all of it.
#[derive(Clone)]
pub struct Exported {
    listing: Listing,
    fields: Vec<(String, String)>,
}

impl Exported {
    /// The session.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Names and JSON texts of its fields.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }
}

/// Without its data.
impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exported").field("listing", &self.listing).finish_non_exhaustive()
    }
}

impl<L> RedisSessionLayer<L> {
    /// The sessions of users, for use outside of requests.
    pub fn sessions(&self) -> Sessions<L> {
        Sessions::of(self.settings.clone())
    }
}

impl<L> Sessions<L> {
    pub(crate) fn of(settings: Arc<Settings>) -> Self {
        Self { durability: settings.durability, settings, marker: PhantomData }
    }

    /// What the ends of sessions wait for, rather than what the layer says ([`RedisSessionLayer::durability`]). One that is
    /// not on so many replicas in time stands, and so do all others of the same call, which then is an error with
    /// `is_not_replicated`.
    ///
    /// # Errors
    /// `is_config`: no replica, or no time or too much of it.
    ///
    /// ```
    /// use redis_session::{Durability, Error, Sessions};
    /// use std::time::Duration;
    ///
    /// async fn account_was_stolen(sessions: Sessions, user: u64) -> Result<usize, Error> {
    ///     let all = Durability::Replicated { replicas: 2, within: Duration::from_secs(1) };
    ///     sessions.durability(all)?.revoke_all(user).await
    /// }
    /// # use redis_session::{KeyRing, MemoryStore, RedisSessionLayer};
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layer: RedisSessionLayer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
    /// # assert_eq!(account_was_stolen(layer.sessions(), 7).await?, 0);
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub fn durability(self, durability: Durability) -> Result<Self, Error> {
        Ok(Self { durability: durability.check()?, ..self })
    }

    /// All sessions of a user, the one last seen first. Costs one command for the list, and one for each session.
    ///
    /// # Errors
    /// `is_unavailable`: the store failed. `is_user`: an empty id.
    pub async fn list(&self, user: impl Display) -> Result<Vec<Listing>, Error> {
        let user = User::new(user)?;
        let mut listings: Vec<Listing> =
            self.records(&user, false).await?.into_iter().map(|(listing, _)| listing).collect();
        listings.sort_by(|a, b| b.seen.cmp(&a.seen).then(b.handle.cmp(&a.handle)));
        Ok(listings)
    }

    /// What is kept of a user: all of his sessions, with all of their fields (GDPR, article 15).
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn export(&self, user: impl Display) -> Result<Vec<Exported>, Error> {
        let user = User::new(user)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let export = |(listing, record): (Listing, Record)| Exported {
            listing,
            fields: record.fields.iter().map(|(name, value)| (text(name), text(value))).collect(),
        };
        Ok(self.records(&user, true).await?.into_iter().map(export).collect())
    }

    async fn records(&self, user: &User, whole: bool) -> Result<Vec<(Listing, Record)>, Error> {
        let settings = &*self.settings;
        let (index, of) = (settings.index()?, user.key(&settings.realm));
        let handles = index.sessions(&of).await.map_err(|error| settings.store_failed(error))?;
        let mut stored = Vec::with_capacity(handles.len());
        for some in handles.chunks(AT_ONCE) {
            let some = futures_util::future::join_all(some.iter().map(|handle| async move {
                let key = handle.key(&settings.realm);
                let stored = if whole { settings.store.load(&key).await } else { settings.store.glance(&key).await };
                (*handle, stored)
            }));
            stored.extend(some.await);
        }
        let mut records = Vec::with_capacity(stored.len());
        let (life, now) = (settings.expiry.life(), settings.store.now());
        for (handle, stored) in stored {
            let record = match stored.map_err(|error| settings.store_failed(error)) {
                Ok(Some(Stored::Record(record))) => record,
                Ok(_) => continue,
                // Told by now. It is no session for anybody, and the others are to be seen.
                Err(error) if error.is_corrupt() => continue,
                Err(error) => return Err(error),
            };
            let is_past = now.is_some_and(|now| life.deadline(record.created, record.seen, &record.wishes) <= now);
            // Others' entries are those of logins that came to nothing.
            match &record.login {
                Some(login) if login.user == *user && !is_past => {
                    let login = (**login).clone();
                    let listing = Listing { handle, created: record.created, seen: record.seen, login };
                    records.push((listing, record));
                }
                _ => {}
            }
        }
        Ok(records)
    }

    /// Ends one session of a user. `false`: he has no such session; it may be another's, or have ended.
    ///
    /// # Errors
    /// `is_unavailable`, `is_outcome_unknown`: the store failed; it may live. `is_not_replicated`: it ended, and a failover
    /// now may bring it back.
    pub async fn revoke(&self, user: impl Display, session: SessionHandle) -> Result<bool, Error> {
        let user = User::new(user)?;
        match self.doom(&user, Which::Only(session)).await? {
            (Doomed::Doomed(sessions), waited) => Ok(self.end(&user, &sessions, waited).await? > 0),
            _ => Ok(false),
        }
    }

    /// Ends all sessions of this session's user but this one, and the logins under way whose requests came before: to be
    /// called after a new password was stored. Answers how many ended.
    ///
    /// # Errors
    /// `is_not_logged_in`: nobody is logged in in this session. `is_gone`: it ended, or is itself about to be ended.
    /// `is_unavailable`, `is_outcome_unknown`: the store failed; some may live. `is_corrupt`, `is_not_replicated`: as with
    /// [`revoke_all`](Self::revoke_all).
    pub async fn revoke_others(&self, session: &Session<Untyped, L>) -> Result<usize, Error> {
        let handle = &session.handle;
        // Whose session it is, a replica may not know yet.
        drop(handle.turn_to_write().await?);
        let (user, own) = {
            let state = handle.state();
            match (&state.found, &state.id) {
                (Found::Alive(record), Some(id)) => {
                    (record.user().cloned().ok_or_else(Error::not_logged_in)?, handle.key(id))
                }
                (Found::Absent, _) => {
                    state.was_read()?;
                    return Err(Error::not_logged_in());
                }
                _ => return Err(Error::gone()),
            }
        };
        let which = Which::AllBut(own.handle());
        let mut doomed = self.doom(&user, which).await?;
        if doomed.0 == Doomed::Missing {
            // The entry was lost; whose session lives gets it back.
            if let Listed::Gone(_) = listing::keep(handle, Need::Renewal).await? {
                return Err(Error::gone());
            }
            doomed = self.doom(&user, which).await?;
        }
        match doomed {
            (Doomed::Doomed(sessions), waited) => self.end(&user, &sessions, waited).await,
            _ => Err(Error::gone()),
        }
    }

    /// Ends all sessions of a user, and the logins under way whose requests came before. Answers how many ended.
    ///
    /// # Errors
    /// `is_unavailable`, `is_outcome_unknown`: the store failed; some may live. `is_corrupt`: all but those ended that no server
    /// of this version can read; they stay where they are. `is_not_replicated`: all of them ended, and a failover now may
    /// bring some back.
    pub async fn revoke_all(&self, user: impl Display) -> Result<usize, Error> {
        let user = User::new(user)?;
        match self.doom(&user, Which::All).await? {
            (Doomed::Doomed(sessions), waited) => self.end(&user, &sessions, waited).await,
            _ => Ok(0),
        }
    }

    /// Erases what is kept of a user (GDPR, article 17): all of his sessions and their list. What is left for two minutes
    /// at most is the time of this call, and of each session why it ended. Answers how many sessions ended.
    ///
    /// # Errors
    /// As [`revoke_all`](Self::revoke_all).
    pub async fn erase(&self, user: impl Display) -> Result<usize, Error> {
        self.revoke_all(user).await
    }

    /// Ends all sessions of all users, and the logins under way whose requests came before; visitors who are not logged in
    /// stay. Answers how many ended.
    ///
    /// Goes through all sessions twice, with more than a minute in between, since a login that came before may still be
    /// under way: so this is for a command line or a worker. `progress` is told after each page. A login in the first five
    /// seconds ends as well, since the clocks of two Redis servers may differ by so much. On a cluster that moves slots in
    /// the meantime it may miss sessions that were on their way: call it again when they have arrived.
    ///
    /// One session that cannot be ended holds up no other: it is tried once more at the end of a pass, and the first such
    /// error is the answer when all the rest has ended.
    ///
    /// # Errors
    /// `is_unavailable`, `is_outcome_unknown`: the store failed; some may live, so call it again. `is_corrupt`: what is at
    /// some key is no record of this library, and is left there. `is_config`: this store cannot go through its sessions.
    /// `is_not_replicated`: as with [`revoke_all`](Self::revoke_all).
    pub async fn revoke_everybody(&self, mut progress: impl FnMut(Progress)) -> Result<u64, Error> {
        let settings = &*self.settings;
        // Without the time all logins to come would end.
        let began = time_of_store(settings, || settings.store.page(&settings.realm, None)).await?;
        let before = Whose::ArrivedBefore(began + CLOCK_MARGIN);
        let mut pass = Pass { sessions: self, before, done: Progress::default(), failed: None, missed: None };
        pass.run(&mut progress).await?;
        tokio::time::sleep(LOGINS_TAKE + settings.store.deadline()).await;
        pass.run(&mut progress).await?;
        pass.failed.or(pass.missed).map_or(Ok(pass.done.ended), Err)
    }

    async fn doom(&self, user: &User, which: Which) -> Result<(Doomed, WaitedFor), Error> {
        let settings = &*self.settings;
        let (index, of, begun) = (settings.index()?, &user.key(&settings.realm), Instant::now());
        let run = |not_after, replication| async move {
            let doom = Doom { which, not_after };
            match replication {
                None => index.doom(of, &doom).await.map(Waited::enough),
                Some(replication) => index.doom_durably(of, &doom, replication).await,
            }
        };
        let waited = listing::step_durably(settings, self.durability, run, |doomed| *doomed == Doomed::Late).await?;
        let missed = waited.missed.map(|error| settings.not_replicated(error));
        Ok((waited.outcome, WaitedFor { missed, rest: rest(self.durability, begun) }))
    }

    async fn end(&self, user: &User, sessions: &[SessionHandle], waited: WaitedFor) -> Result<usize, Error> {
        let WaitedFor { missed, rest } = waited;
        match listing::end_and_leave(&self.settings, user, sessions, Reason::Revoked, rest).await {
            Err(error) if !error.is_not_replicated() => Err(error),
            // The first one that missed its replicas says for how long it was waited.
            ended => missed.map_or(ended, Err),
        }
    }
}

/// What became of the wait for the marks of sessions that are about to be ended.
struct WaitedFor {
    /// Why they are not on as many replicas as they were to be. `None`: they are, or nothing was written.
    missed: Option<Error>,
    /// What the ends themselves wait for.
    rest: Durability,
}

/// A pass over the sessions of all users.
struct Pass<'a, L> {
    sessions: &'a Sessions<L>,
    before: Whose,
    done: Progress,
    /// Why a session could not be ended in this pass.
    failed: Option<Error>,
    /// Why one that was ended is not on as many replicas as it was to be.
    missed: Option<Error>,
}

impl<L> Pass<'_, L> {
    async fn run(&mut self, progress: &mut impl FnMut(Progress)) -> Result<(), Error> {
        let settings = &*self.sessions.settings;
        self.done.pass += 1;
        // What failed before is looked at again.
        self.failed = None;
        let (mut from, mut again) = (None, Vec::new());
        loop {
            let page = settings.store.page(&settings.realm, from).await;
            let Page { sessions, next } = page.map_err(|error| settings.store_failed(error))?;
            self.done.looked_at += sessions.len() as u64;
            for (key, error) in self.end(&sessions).await {
                if again.len() == MOST_FAILURES {
                    return Err(error);
                }
                again.push(key);
            }
            progress(self.done);
            from = next;
            if from.is_none() {
                break;
            }
        }
        if !again.is_empty() {
            self.failed = self.end(&again).await.into_iter().map(|(_, error)| error).next();
            progress(self.done);
        }
        Ok(())
    }

    /// Answers those that could not be ended.
    async fn end(&mut self, sessions: &[SessionKey]) -> Vec<(SessionKey, Error)> {
        let mut failed = Vec::new();
        for some in sessions.chunks(AT_ONCE) {
            let endings = futures_util::future::join_all(some.iter().map(|key| self.end_one(key))).await;
            for (key, ending) in some.iter().zip(endings) {
                match ending {
                    Err(error) => failed.push((key.clone(), error)),
                    Ok(Ending { ended, missed }) => {
                        self.missed = self.missed.take().or(missed);
                        if ended == Ended::Ended {
                            self.done.ended += 1;
                            self.sessions.settings.tell(Event::Revoked(Reason::Revoked));
                        }
                    }
                }
            }
        }
        failed
    }

    /// The session, and then its entry, which would else count for its user's cap; one that a failover may bring back stays in
    /// the list.
    async fn end_one(&self, key: &SessionKey) -> Result<Ending, Error> {
        let Sessions { settings, durability, .. } = self.sessions;
        let whose = match listing::look(settings, key).await? {
            Some(Stored::Record(record)) => record.user().cloned(),
            _ => None,
        };
        let ending = listing::end(settings, key, Reason::Revoked, self.before.clone(), *durability).await?;
        if let Some(user) = whose.filter(|_| ending.ended == Ended::Ended && ending.missed.is_none()) {
            listing::leave(settings, &user, &[key.handle()]).await?;
        }
        Ok(ending)
    }
}

impl<S, L> FromRequestParts<S> for Sessions<L>
where
    S: Sync,
    L: 'static,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let handle = handle_of::<Self, L>(&parts.extensions)?;
        Ok(Self::of(handle.settings.clone()))
    }
}

impl<L> Clone for Sessions<L> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), ..*self }
    }
}

impl<L> fmt::Debug for Sessions<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("realm", &self.settings.realm).finish()
    }
}
