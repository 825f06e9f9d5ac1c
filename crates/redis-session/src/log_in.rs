//! Logs a user in: the entry in the index first, then the session, then one more look at the entry.

use std::sync::Arc;
use std::time::Duration;

use redis_session_core::{
    Derivation, Durability, Ended, Enter, Entered, Fields, Found, Kind, Level, LogIn, Reason, Rule, SessionHandle,
    SessionId, Standing, Stored, Successor, Token, User, Waited, Whose, Why, WishChange,
};
use tokio::time::Instant;

use crate::commit::{self, Gives, Wrote};
use crate::ending;
use crate::error::Error;
use crate::events::Event;
use crate::handle::{Handle, Outgoing};
use crate::listing;
use crate::tries::rest;

/// How many places a login tries: a session that vanishes meanwhile takes its login to a new one.
const PLACES: usize = 4;
/// What a login relies on may not be older: revocations are not remembered for ever.
const OLDEST: Duration = Duration::from_secs(60);

/// The store counts in whole milliseconds: what it takes for a later one may have been earlier by so much.
const CLOCKS_ARE_COARSE: Duration = Duration::from_millis(2);

/// Who is to be logged in, and how.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) user: User,
    pub(crate) level: Level,
    pub(crate) label: Option<String>,
    /// When the application has checked what the login relies on. `None`: after the request's arrival.
    pub(crate) verified: Option<Instant>,
}

/// Where the login is written.
enum Place {
    /// Into the session that the request came with, whose id becomes this one.
    Present {
        id: SessionId,
        /// Whether it was this user's before.
        own: bool,
    },
    /// Into a session that the same user's login made of the one that the request came with.
    SecondClick(SessionId),
    /// Into a new one.
    New(SessionId),
}

impl Place {
    fn id(&self) -> &SessionId {
        match self {
            Self::Present { id, .. } | Self::SecondClick(id) | Self::New(id) => id,
        }
    }

    fn is_own(&self) -> bool {
        matches!(self, Self::Present { own: true, .. })
    }

    /// Whether no other login can be here: the entry of a session that the browser has may be that of its other click.
    fn is_alone(&self) -> bool {
        matches!(self, Self::New(_))
    }
}

/// Logs the user in. The caller has the turn.
///
/// The order of the steps is the protocol's: whoever ends a user's sessions meanwhile meets either the entry, which it
/// dooms, or a login that looks and finds out. Each step may be the last one before this process dies.
pub(crate) async fn log_in(handle: &Arc<Handle>, asked: &Asked) -> Result<(), Error> {
    handle.state().may_write()?;
    let mut place = first_place(handle, &asked.user).await?;
    let mut instead_of = None;
    for _ in 0..PLACES {
        let (session, begun) = (handle.key(place.id()).handle(), Instant::now());
        let Some(doomed) = enter(handle, asked, &place, session, instead_of.take()).await? else {
            place = Place::New(SessionId::random(&handle.settings.random)?);
            continue;
        };
        // Entered like any other login: this click may be one of before a revocation, and the other one of after it.
        if let Place::SecondClick(id) = &place {
            match adopt(handle, asked, id).await? {
                Adopted::Yes => return check(handle, asked).await,
                Adopted::Gone => instead_of = Some(session),
                Adopted::Replaced => {}
            }
            place = Place::New(SessionId::random(&handle.settings.random)?);
            continue;
        }
        if Rule::CapsEndBeforeTheWrite.holds() {
            make_room(handle, asked, &place, session, &doomed).await?;
        }
        match write(handle, asked, &place, session, rest(handle.durability(), begun)).await? {
            Written::Done => {
                if !Rule::CapsEndBeforeTheWrite.holds() {
                    listing::make_room(&handle.settings, &asked.user, &doomed).await?;
                }
                return check(handle, asked).await;
            }
            Written::Elsewhere(id) => place = Place::SecondClick(id),
            Written::Nowhere { stale } => {
                instead_of = stale.then_some(session);
                place = Place::New(SessionId::random(&handle.settings.random)?);
            }
        }
    }
    Err(commit::ids_repeat())
}

/// Step 1. Another user's session ends; what this request has loaded of it is not for the new one.
async fn first_place(handle: &Arc<Handle>, user: &User) -> Result<Place, Error> {
    let settings = &handle.settings;
    let new = || SessionId::random(&settings.random).map(Place::New).map_err(Error::from);
    let (id, present) = {
        let state = handle.state();
        let Some(id) = state.id.clone() else { return new() };
        let key = state.signed_by.unwrap_or_else(|| settings.signer.current());
        let successor = || settings.signer.successor(&id, key, Derivation::Login(user));
        match &state.found {
            Found::Alive(record) => match record.user() {
                None => return Ok(Place::Present { id: successor(), own: false }),
                Some(own) if own == user => {
                    return Ok(Place::Present { id: id.rotated(&settings.random)?, own: true });
                }
                Some(other) => (id.clone(), other.clone()),
            },
            Found::Replaced { by: Some(Successor::Login(by)), .. } if by == user => {
                return Ok(Place::SecondClick(successor()));
            }
            _ => return new(),
        }
    };
    let (key, whose) = (handle.key(&id), Whose::Users(present.clone()));
    // What is waited for is the login: on the same server, what came before it is there with it.
    let ending = listing::end(settings, &key, Reason::OtherUser, whose, Durability::Fast).await?;
    if ending.ended == Ended::Ended {
        handle.tell(Event::Revoked(Reason::OtherUser));
    }
    listing::leave(settings, &present, &[key.handle()]).await?;
    let edits_stay = handle.working()?.rebase(Fields::default());
    if edits_stay.is_err() {
        handle.working()?.reset(Fields::default());
    }
    let mut state = handle.state();
    (state.found, state.wish) = (Found::Absent, WishChange::default());
    // An offer of a renewed id was for the session that has ended.
    state.outgoing = Outgoing::Nothing;
    state.stand_on(None);
    drop(state);
    new()
}

/// Step 2. Answers whom else to end; `None`: this place is about to be ended.
async fn enter(
    handle: &Arc<Handle>,
    asked: &Asked,
    place: &Place,
    session: SessionHandle,
    instead_of: Option<SessionHandle>,
) -> Result<Option<Vec<SessionHandle>>, Error> {
    let settings = &handle.settings;
    let age = || asked.verified.map_or_else(|| handle.waited(), |verified| verified.elapsed()) + CLOCKS_ARE_COARSE;
    if age() > OLDEST {
        return Err(refused(handle, "what it relies on is more than a minute old"));
    }
    let life = {
        let state = handle.state();
        let now = settings.store.now().unwrap_or_default();
        let wishes = match &state.found {
            Found::Alive(record) => record.wishes,
            _ => Default::default(),
        };
        settings.entry_life(now, now, &state.wish.apply(wishes, now))
    };
    let (index, user) = (handle.index()?, &asked.user.key(&settings.realm));
    let run = |not_after, replication| {
        let enter = Enter { session, life, cap: settings.cap, age: age(), instead_of, not_after };
        async move {
            match replication {
                None => index.enter(user, &enter).await.map(Waited::enough),
                Some(replication) => index.enter_durably(user, &enter, replication).await,
            }
        }
    };
    let is_late = |entered: &Entered| *entered == Entered::Late;
    let entered = listing::step_durably(settings, handle.durability(), run, is_late).await?;
    match handle.outcome(entered) {
        Entered::Late | Entered::Revoked => Err(refused(handle, "the user's sessions were ended meanwhile")),
        Entered::Doomed if place.is_own() => {
            listing::end_and_leave(settings, &asked.user, &[session], Reason::Revoked, Durability::Fast).await?;
            Err(refused(handle, "this session is about to be ended"))
        }
        Entered::Doomed => Ok(None),
        // The answer itself may have taken its time.
        Entered::Entered { since_revoked, .. }
            if since_revoked.is_some_and(|since| since <= age()) && Rule::RevocationsAreRemembered.holds() =>
        {
            if place.is_alone() {
                listing::leave(settings, &asked.user, &[session]).await?;
            }
            Err(refused(handle, "the user's sessions were ended meanwhile"))
        }
        Entered::Entered { doomed, .. } => Ok(Some(doomed)),
    }
}

/// Step 3, and step 5 for those that it ends.
async fn make_room(
    handle: &Handle,
    asked: &Asked,
    place: &Place,
    session: SessionHandle,
    doomed: &[SessionHandle],
) -> Result<(), Error> {
    let made = listing::make_room(&handle.settings, &asked.user, doomed).await;
    if made.is_err() && place.is_alone() {
        // Best effort: an entry without a session counts for the cap, and the next try would push out one more.
        let _ = listing::leave(&handle.settings, &asked.user, &[session]).await;
    }
    made
}

enum Written {
    Done,
    /// The same user's login has made this of the session.
    Elsewhere(SessionId),
    /// The session is no more, or not for this login.
    Nowhere {
        /// Whether the entry is to go.
        stale: bool,
    },
}

/// Step 4.
async fn write(
    handle: &Arc<Handle>,
    asked: &Asked,
    place: &Place,
    session: SessionHandle,
    durability: Durability,
) -> Result<Written, Error> {
    let settings = &handle.settings;
    let Asked { user, level, label, .. } = asked.clone();
    let login = LogIn { user, level, label, waited: handle.waited() };
    let (id, own) = match place {
        Place::Present { id, own } => (id.clone(), *own),
        Place::New(id) | Place::SecondClick(id) => {
            let staged = handle.working()?.stage();
            let created = commit::create_at(handle, id.clone(), staged, Some(login), durability).await;
            return match created {
                Ok(true) => Ok(Written::Done),
                Ok(false) => taken(handle, asked, session).await,
                Err(error) => {
                    if place.is_alone() && !error.is_outcome_unknown() {
                        // Best effort: an entry without a session goes by itself.
                        let _ = listing::leave(settings, &asked.user, &[session]).await;
                    }
                    Err(error)
                }
            };
        }
    };
    let token = Token::random(&settings.random)?;
    let gives = Gives::LogIn(id.clone(), login);
    match commit::write(handle, Some(token), &mut |working| Ok(working.stage()), gives, true, durability).await {
        Ok(Wrote::Done) => Ok(Written::Done),
        Ok(Wrote::LoggedInAlready) => Ok(Written::Elsewhere(id)),
        Ok(Wrote::Dead(Found::Ended { reason, .. })) if reason == Reason::Cap || own && is_of_a_revocation(reason) => {
            Err(ended_meanwhile(handle, &asked.user, session).await?)
        }
        Ok(Wrote::Dead(Found::Replaced { .. })) => {
            let stale = match listing::look(settings, &handle.key(&id)).await? {
                // Nobody's session may be entered by another login at this moment, under its newer id; another user's
                // becomes this one's no more.
                Some(Stored::Record(record)) => record.user().is_some_and(|user| *user != asked.user),
                _ => true,
            };
            Ok(Written::Nowhere { stale })
        }
        Ok(Wrote::Dead(_)) => Ok(Written::Nowhere { stale: true }),
        Err(error) => Err(error),
    }
}

/// The place of a new session is taken: by the tombstone that a later login has left there for the cap, or by chance.
async fn taken(handle: &Handle, asked: &Asked, session: SessionHandle) -> Result<Written, Error> {
    let settings = &handle.settings;
    match listing::look(settings, &session.key(&settings.realm)).await? {
        // Who tried again would push the later one out, and so would that one in its turn.
        Some(Stored::Ended(tombstone)) if tombstone.reason == Reason::Cap => {
            listing::leave(settings, &asked.user, &[session]).await?;
            Err(refused(handle, "the user has logged in elsewhere meanwhile, up to the most sessions that he may have"))
        }
        _ => Ok(Written::Nowhere { stale: true }),
    }
}

async fn ended_meanwhile(handle: &Handle, user: &User, session: SessionHandle) -> Result<Error, Error> {
    listing::leave(&handle.settings, user, &[session]).await?;
    Ok(refused(handle, "the session was ended meanwhile"))
}

fn is_of_a_revocation(reason: Reason) -> bool {
    matches!(reason, Reason::Revoked | Reason::Refused)
}

/// How it went to take over a session.
enum Adopted {
    Yes,
    /// It is no more.
    Gone,
    /// It lives, under another id.
    Replaced,
}

/// Takes over the session that the same user's login has made.
async fn adopt(handle: &Handle, asked: &Asked, id: &SessionId) -> Result<Adopted, Error> {
    let found = handle.look_up(id).await?;
    match &found {
        Found::Alive(record) if record.user() == Some(&asked.user) => {}
        Found::Alive(_) | Found::Replaced { .. } => return Ok(Adopted::Replaced),
        Found::Absent | Found::Gone | Found::Expired | Found::Ended { .. } => return Ok(Adopted::Gone),
    }
    if handle.working()?.is_changed() {
        handle.tell(Event::Dropped(Why::Dead));
    }
    let mut state = handle.state();
    state.wish = WishChange::default();
    drop(state);
    handle.take_in(Ok(found))?;
    handle.state().give(id.clone());
    Ok(Adopted::Yes)
}

/// Step 6. Whoever ended the user's sessions since step 2 has doomed this entry, or taken it away.
async fn check(handle: &Arc<Handle>, asked: &Asked) -> Result<(), Error> {
    let settings = &handle.settings;
    let Some(id) = handle.state().id.clone() else { return Err(Error::gone()) };
    let session = handle.key(&id).handle();
    let (index, user) = (handle.index()?, &asked.user.key(&settings.realm));
    let standing = listing::step(settings, |_| index.standing(user, session), |_| false).await;
    let error = match standing {
        Ok(Some(Standing::Listed)) => {
            handle.tell(Event::LoggedIn);
            return Ok(());
        }
        Ok(_) if !Rule::LoginsAreCheckedAtTheEnd.holds() => return Ok(()),
        Ok(_) => {
            let durability = handle.durability();
            let ended = listing::end_and_leave(settings, &asked.user, &[session], Reason::Refused, durability).await;
            match ended {
                Err(error) if !error.is_not_replicated() => error,
                _ => refused(handle, "the user's sessions were ended meanwhile"),
            }
        }
        Err(error) => error,
    };
    if !error.is_login_refused() {
        // Nobody knows whether this login may stand, so it does not.
        ending::go_on_in_background(handle, &id, Some(&asked.user), Reason::Refused);
    }
    commit::bury(handle, Found::Ended { reason: Reason::Refused, lately: true })?;
    Err(error)
}

fn refused(handle: &Handle, why: &'static str) -> Error {
    handle.tell(Event::LoginRefused);
    Error::new(Kind::LoginRefused, format!("the login was refused: {why}"))
}
