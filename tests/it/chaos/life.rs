//! The model: what a user knows of one session from the answers, and what every further answer must fit.

use std::fmt;
use std::time::{Duration, Instant};

use axum::Router;
use redis_session_testkit::Browser;

use super::shop::Seen;

/// Nobody does anything any more for a request that was answered so long ago that it is not known what it did.
const NOTHING_HAPPENS_AFTER: Duration = Duration::from_secs(1);

/// A logout that failed has succeeded by then: no fault takes longer, and it is tried again every two seconds at least.
pub(super) const TRIED_AGAIN_WITHIN: Duration = Duration::from_secs(10);

/// What must never be, whatever the servers lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wrong {
    /// Another user's session, or an edit of another session.
    MixedUp,
    /// An edit that was made twice.
    Twice,
    /// A part of an edit.
    Half,
    /// A cookie that was set or removed by what does neither.
    Cookie,
    /// An answer that nothing explains.
    Answer,
    TooSlow,
}

impl Wrong {
    pub(super) const ALL: [Self; 6] =
        [Self::MixedUp, Self::Twice, Self::Half, Self::Cookie, Self::Answer, Self::TooSlow];
}

/// What was acknowledged, and is not so any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lost {
    Edit,
    /// A login or a rotation: the cookie that came with it is worth nothing.
    Session,
    /// A rotation: the cookie of before is worth something again.
    Rotation,
    /// An acknowledged logout: the session lives again.
    LogOut,
    /// An acknowledged end of all of the user's sessions: this one lives.
    Revocation,
    /// A logout that failed, and was to be tried again: the session lives yet.
    FailedLogOut,
    /// An edit of unknown outcome that had not been made, and was made all the same.
    MadeLate,
}

/// One thing that was lost.
pub(super) struct Loss {
    pub(super) what: Lost,
    pub(super) user: String,
    pub(super) handle: String,
    /// When it was acknowledged: any of these may be what was lost.
    pub(super) acknowledged: Vec<Instant>,
    /// When the session was entered in the list of its user's. `None`: that is not what was lost.
    pub(super) entered: Option<Instant>,
    details: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {}", self.what, self.details)
    }
}

struct Edit {
    tag: String,
    outcome: Outcome,
    /// Whether the answer said so. It may have said nothing of it: an edit whose session is replaced meanwhile is dropped.
    said_so: bool,
    answered: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was acknowledged.
    Made,
    /// It was acknowledged, and is lost; this is on the list of losses.
    Lost,
    /// Nobody knows.
    Unknown,
    /// It had not been made by the time at which it could have been.
    NotMade,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Alive,
    /// Its user has logged out, and was told so.
    LoggedOut(Instant),
    /// Its user has logged out, and was told that it failed.
    LogOutFailed(Instant),
    /// All sessions of its user were ended, from when it was first tried until it was told that they were.
    Revoked(Instant, Instant),
    /// All sessions of its user are being ended since then, and nobody was told yet that they were.
    Revoking(Instant),
    /// Its user had to log in again: a rotation that was not answered has taken his cookie.
    RotatedAway,
    /// Its user had to log in again: this is on the list of losses.
    Lost,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::LoggedOut(_) => "logged out",
            Self::LogOutFailed(_) => "logged out with an error",
            Self::Revoked(..) => "revoked",
            Self::Revoking(_) => "perhaps revoked",
            Self::RotatedAway => "lost to a rotation that was not answered",
            Self::Lost => "lost",
        }
    }
}

/// One session, from login to logout.
pub(super) struct Life {
    pub(super) user: String,
    pub(super) name: String,
    pub(super) handle: String,
    /// Whether an answer says that the write is on all replicas.
    durable: bool,
    /// When a cookie was given: at the login and at each rotation that was answered.
    given: Vec<Instant>,
    /// When a rotation was not answered, of which it is not known yet that it was not made.
    rotation_unknown: Option<Instant>,
    edits: Vec<Edit>,
    pub(super) state: State,
    /// The browser before each rotation that was answered, and when that was.
    pub(super) before_rotations: Vec<(Browser<Router>, Instant)>,
    /// The browser as it is, or as it was before the logout.
    pub(super) browser: Browser<Router>,
    pub(super) wrong: Vec<(Wrong, String)>,
    pub(super) losses: Vec<Loss>,
}

impl Life {
    /// Begun with a login that was acknowledged now.
    pub(super) fn new(user: &str, name: &str, seen: &Seen, browser: Browser<Router>, durable: bool) -> Self {
        let (given, handle) = (vec![Instant::now()], seen.handle.clone().unwrap_or_default());
        let mut life = Self {
            user: user.to_owned(),
            name: name.to_owned(),
            handle,
            durable,
            given,
            rotation_unknown: None,
            edits: Vec::new(),
            state: State::Alive,
            before_rotations: Vec::new(),
            browser,
            wrong: Vec::new(),
            losses: Vec::new(),
        };
        life.compare(seen, Instant::now());
        life
    }

    pub(super) fn next_tag(&self, more: usize) -> String {
        format!("{}.{}", self.name, self.edits.len() + more)
    }

    /// How many edits were acknowledged, and of how many nobody knows the outcome.
    pub(super) fn edits(&self) -> (usize, usize) {
        let made = |edit: &&Edit| matches!(edit.outcome, Outcome::Made | Outcome::Lost);
        let made = self.edits.iter().filter(made).count();
        (made, self.edits.len() - made)
    }

    /// An edit was answered.
    pub(super) fn edited(&mut self, tag: String, said_so: bool) {
        // Whose id is replaced before its edit is written keeps the response, which says nothing of the edit.
        let outcome = if said_so && self.rotation_unknown.is_none() { Outcome::Made } else { Outcome::Unknown };
        self.edits.push(Edit { tag, outcome, said_so, answered: Instant::now() });
    }

    /// A rotation was answered; `None`: by nobody who knows.
    pub(super) fn rotated(&mut self, before: Option<Browser<Router>>) {
        match before {
            Some(before) => {
                self.before_rotations.push((before, Instant::now()));
                self.given.push(Instant::now());
                // It stands where this one does, and comes no more: its id is replaced.
                if self.durable {
                    self.rotation_unknown = None;
                }
            }
            None => self.rotation_unknown = Some(Instant::now()),
        }
    }

    /// Compares what a request that was sent then has loaded with the cookie that the browser has.
    pub(super) fn look(&mut self, seen: &Seen, sent: Instant) {
        if self.state != State::Alive {
            return;
        }
        match &seen.user {
            Some(_) => {
                let durable_since = self.durable_since(seen);
                self.rotation_unknown.take_if(|answered| {
                    let over = *answered + NOTHING_HAPPENS_AFTER;
                    over <= sent && durable_since.is_none_or(|since| since.is_some_and(|since| over <= since))
                });
                self.compare(seen, sent);
            }
            None => self.gone(&seen.status),
        }
    }

    /// When the last edit that is there and was acknowledged was answered: all that was before it is on the replicas too.
    /// `None`: that says nothing, since writes do not wait for them. `Some(None)`: there is no such edit.
    fn durable_since(&self, seen: &Seen) -> Option<Option<Instant>> {
        let is_there = |edit: &&Edit| edit.said_so && seen.kept.tags.contains(&edit.tag);
        self.durable.then(|| self.edits.iter().filter(is_there).map(|edit| edit.answered).max())
    }

    /// The session is not there, or not for this cookie.
    pub(super) fn gone(&mut self, how: &str) {
        if self.rotation_unknown.is_some() {
            self.state = State::RotatedAway;
            return;
        }
        self.state = State::Lost;
        self.lose(Lost::Session, self.given.clone(), how);
    }

    /// Looks at a session that should be dead, with a cookie of before its end or of before a rotation, which somebody
    /// acknowledged at some moment between these.
    pub(super) fn look_behind(&mut self, seen: &Seen, what: Lost, from: Instant, to: Instant) {
        if seen.user.is_none() {
            return;
        }
        self.compare_names(seen);
        let halves = 0..=u32::try_from((to - from).as_millis() / 500).unwrap();
        let mut acknowledged: Vec<_> = halves.map(|half| from + half * Duration::from_millis(500)).collect();
        acknowledged.push(to);
        self.lose(what, acknowledged, &seen.status);
    }

    fn compare(&mut self, seen: &Seen, sent: Instant) {
        self.compare_names(seen);
        let kept = &seen.kept;
        let count = kept.tags.len() as u64;
        if (count, count) != (kept.edits, kept.merged) {
            self.wrong.push((Wrong::Half, format!("{}: {kept:?}", self.name)));
        }
        // An edit stays if it stands before one that was acknowledged, since that one waited for both; of what nobody
        // acknowledged, somebody may have read what a failover undoes.
        let stay = match self.durable {
            false => kept.tags.len(),
            true => {
                let acknowledged = |tag: &&String| self.edits.iter().any(|edit| edit.said_so && edit.tag == **tag);
                kept.tags.iter().rposition(|tag| acknowledged(&tag)).map_or(0, |last| last + 1)
            }
        };
        let mut tags = kept.tags.clone();
        tags.sort();
        tags.dedup();
        if tags.len() != kept.tags.len() {
            self.wrong.push((Wrong::Twice, format!("{}: {kept:?}", self.name)));
        }
        let mut lost = Vec::new();
        for edit in self.edits.iter_mut().filter(|edit| edit.answered <= sent) {
            let is_there = tags.contains(&edit.tag);
            let is_over = edit.answered + NOTHING_HAPPENS_AFTER <= sent;
            let what = match edit.outcome {
                Outcome::Made if !is_there => Lost::Edit,
                Outcome::NotMade if is_there => Lost::MadeLate,
                Outcome::Unknown if kept.tags[..stay].contains(&edit.tag) => {
                    edit.outcome = Outcome::Made;
                    continue;
                }
                Outcome::Unknown if is_there => continue,
                Outcome::Unknown if is_over => {
                    edit.outcome = Outcome::NotMade;
                    continue;
                }
                _ => continue,
            };
            edit.outcome = Outcome::Lost;
            lost.push((what, edit.answered, edit.tag.clone()));
        }
        for (what, answered, tag) in lost {
            self.lose(what, vec![answered], &tag);
        }
    }

    /// Whether it is the user's own, and nothing in it is another's.
    fn compare_names(&mut self, seen: &Seen) {
        let kept = &seen.kept;
        let is_own = seen.user.as_deref() == Some(&self.user)
            && kept.life == self.name
            && seen.handle.as_deref() == Some(&self.handle)
            && kept.tags.iter().all(|tag| is_of(tag, &self.name));
        if !is_own {
            self.wrong.push((Wrong::MixedUp, format!("{} of {}: {seen:?}", self.name, self.user)));
        }
    }

    fn lose(&mut self, what: Lost, acknowledged: Vec<Instant>, details: &str) {
        let (user, handle) = (self.user.clone(), self.handle.clone());
        let details = format!("{}: {details}", self.name);
        // Who ends all sessions of a user finds them in his list.
        let entered = self.given.first().copied().filter(|_| what == Lost::Revocation);
        self.losses.push(Loss { what, user, handle, acknowledged, entered, details });
    }
}

/// Whether an edit is one of this session.
pub(super) fn is_of(tag: &str, life: &str) -> bool {
    tag.rsplit_once('.').is_some_and(|(of, _)| of == life)
}

#[cfg(test)]
mod tests {
    use super::super::shop::Kept;
    use super::*;

    /// What a request of ada has loaded.
    fn loaded(tags: &[&str]) -> Seen {
        let tags: Vec<_> = tags.iter().map(|&tag| tag.to_owned()).collect();
        let (edits, life) = (tags.len() as u64, "ada.0".to_owned());
        let kept = Kept { life, tags, edits, merged: edits };
        let (user, handle) = (Some("ada".to_owned()), Some("handle".to_owned()));
        Seen { user, handle, status: "Alive".to_owned(), kept }
    }

    fn life() -> Life {
        Life::new("ada", "ada.0", &loaded(&[]), Browser::new(Router::new()), false)
    }

    fn durable_life() -> Life {
        Life { durable: true, ..life() }
    }

    fn in_seconds(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn what_must_never_be_is_seen() {
        let with = |change: fn(&mut Seen)| {
            let mut seen = loaded(&["ada.0.1"]);
            change(&mut seen);
            seen
        };
        let cases = [
            (with(|_| ()), None),
            (with(|seen| seen.user = Some("bob".to_owned())), Some(Wrong::MixedUp)),
            (with(|seen| seen.handle = Some("another".to_owned())), Some(Wrong::MixedUp)),
            (with(|seen| seen.kept.life = "ada.1".to_owned()), Some(Wrong::MixedUp)),
            (with(|seen| seen.kept.tags[0] = "ada.00.1".to_owned()), Some(Wrong::MixedUp)),
            (with(|seen| seen.kept.edits = 0), Some(Wrong::Half)),
            (with(|seen| seen.kept.merged = 2), Some(Wrong::Half)),
            (loaded(&["ada.0.1", "ada.0.1"]), Some(Wrong::Twice)),
        ];
        for (seen, wanted) in cases {
            let mut life = life();
            life.look(&seen, in_seconds(1));
            assert_eq!(life.wrong.first().map(|(wrong, _)| *wrong), wanted, "{seen:?}");
        }
    }

    /// Compares what is loaded 1, 3 and 5 seconds later with one edit, and tells what was found to be lost.
    fn losses(acknowledged: bool, loaded_then: [&[&str]; 3]) -> Vec<Lost> {
        let mut life = life();
        life.edited("ada.0.0".to_owned(), acknowledged);
        for (number, tags) in loaded_then.into_iter().enumerate() {
            life.look(&loaded(tags), in_seconds(1 + 2 * number as u64));
        }
        assert!(life.wrong.is_empty());
        life.losses.iter().map(|loss| loss.what).collect()
    }

    #[test]
    fn an_acknowledged_edit_stays_and_an_unknown_one_is_made_in_time_or_never() {
        let (there, not): (&[&str], &[&str]) = (&["ada.0.0"], &[]);
        let cases = [
            (true, [there, there, there], None),
            (true, [there, not, not], Some(Lost::Edit)),
            (true, [not, not, there], Some(Lost::Edit)),
            (false, [there, there, there], None),
            (false, [not, not, not], None),
            (false, [there, not, not], Some(Lost::Edit)),
            (false, [not, not, there], Some(Lost::MadeLate)),
        ];
        for (acknowledged, loaded_then, wanted) in cases {
            assert_eq!(losses(acknowledged, loaded_then), Vec::from_iter(wanted), "{acknowledged} {loaded_then:?}");
        }
    }

    #[test]
    fn where_writes_wait_for_replicas_only_what_was_acknowledged_must_stay() {
        let then = |seconds, tags: &[&str], life: &mut Life| life.look(&loaded(tags), in_seconds(seconds));
        let with = |acknowledged: bool, later: Option<bool>| {
            let mut life = durable_life();
            life.edited("ada.0.0".to_owned(), acknowledged);
            then(1, &["ada.0.0"], &mut life);
            if let Some(acknowledged) = later {
                life.edited("ada.0.1".to_owned(), acknowledged);
                then(2, &["ada.0.0", "ada.0.1"], &mut life);
            }
            then(4, &[], &mut life);
            life.losses.iter().map(|loss| loss.what).collect::<Vec<_>>()
        };
        assert_eq!(with(true, None), [Lost::Edit]);
        assert_eq!(with(false, None), []);
        assert_eq!(with(false, Some(false)), []);
        assert_eq!(with(false, Some(true)), [Lost::Edit; 2], "it stands before one that was acknowledged");
    }

    #[test]
    fn where_writes_wait_for_replicas_a_rotation_that_was_not_answered_is_sure_with_the_next_answer() {
        let nobody = || Seen { user: None, ..loaded(&[]) };
        let gone = |mut life: Life| {
            life.look(&nobody(), in_seconds(9));
            life.state
        };
        let mut read = durable_life();
        read.rotated(None);
        read.look(&loaded(&[]), in_seconds(2));
        assert_eq!(gone(read), State::RotatedAway, "what was read may be undone");
        let mut rotated = durable_life();
        rotated.rotated(None);
        rotated.rotated(Some(Browser::new(Router::new())));
        assert_eq!(gone(rotated), State::Lost);
        for (later, wanted) in [(0, State::RotatedAway), (2, State::Lost)] {
            let mut edited = durable_life();
            edited.rotated(None);
            edited.edited("ada.0.0".to_owned(), true);
            edited.edits[0].answered += Duration::from_secs(later);
            edited.look(&loaded(&["ada.0.0"]), in_seconds(3));
            assert_eq!(gone(edited), wanted, "{later}");
        }
    }

    #[test]
    fn a_session_that_is_gone_was_lost_unless_an_unanswered_rotation_took_it() {
        let nobody = || Seen { user: None, ..loaded(&[]) };
        let mut lost = life();
        lost.look(&nobody(), in_seconds(1));
        assert_eq!((lost.state, lost.losses[0].what), (State::Lost, Lost::Session));
        let mut rotated = life();
        rotated.rotated(None);
        rotated.look(&nobody(), in_seconds(0));
        assert_eq!((rotated.state, rotated.losses.len()), (State::RotatedAway, 0));
        let mut neither = life();
        neither.rotated(None);
        neither.look(&loaded(&[]), in_seconds(2));
        neither.look(&nobody(), in_seconds(3));
        assert_eq!(neither.state, State::Lost);
    }

    #[test]
    fn a_session_that_lives_after_its_end_is_seen() {
        let (mut life, at) = (life(), Instant::now());
        life.look_behind(&Seen { user: None, ..loaded(&[]) }, Lost::LogOut, at, at);
        assert!(life.losses.is_empty());
        life.look_behind(&loaded(&[]), Lost::LogOut, at, at);
        assert_eq!((life.losses[0].what, life.losses[0].entered), (Lost::LogOut, None));
        life.look_behind(&loaded(&[]), Lost::Revocation, at, at + Duration::from_millis(600));
        let seconds: Vec<_> = life.losses[1].acknowledged.iter().map(|then| (*then - at).as_millis()).collect();
        assert_eq!((seconds.as_slice(), life.losses[1].entered.is_some()), ([0, 500, 600].as_slice(), true));
    }
}
