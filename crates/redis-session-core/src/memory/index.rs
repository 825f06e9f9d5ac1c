//! The lists of users' sessions in memory, in the steps that the scripts of the store on Redis make.

use std::collections::{BTreeMap, HashMap};

use crate::index::{
    Doom, Doomed, Enter, Entered, Prolong, Prolonged, REVOCATION_STAYS, SessionHandle, Standing, Which,
};
use crate::rules::Rule;
use crate::time::Time;
use crate::user::UserKey;

/// All users' lists.
#[derive(Default)]
pub(super) struct Lists {
    lists: HashMap<UserKey, List>,
    /// With how many lists those are looked for that nobody uses any more.
    clean_at: usize,
}

/// So few are left alone.
const FEW: usize = 64;

#[derive(Default)]
struct List {
    entries: BTreeMap<SessionHandle, Entry>,
    /// When the user's sessions were last ended. `None`: not lately.
    revoked: Option<Time>,
}

#[derive(Clone, Copy)]
struct Entry {
    until: Time,
    doomed: bool,
}

impl List {
    fn drop_expired(&mut self, now: Time) {
        self.entries.retain(|_, entry| entry.until > now);
        self.revoked = self.revoked.filter(|at| *at + REVOCATION_STAYS > now);
    }

    fn doomed(&self) -> Vec<SessionHandle> {
        self.entries.iter().filter(|(_, entry)| entry.doomed).map(|(session, _)| *session).collect()
    }

    fn doom(&mut self, which: impl Fn(SessionHandle) -> bool) {
        for (session, entry) in &mut self.entries {
            entry.doomed |= which(*session) && Rule::EndsDoomFirst.holds();
        }
    }
}

impl Lists {
    /// A user's list without what is past its time.
    fn of(&mut self, user: &UserKey, now: Time) -> &mut List {
        if self.lists.len() >= self.clean_at.max(FEW) {
            self.drop_expired(now);
            self.clean_at = 2 * self.lists.len();
        }
        let list = self.lists.entry(user.clone()).or_default();
        list.drop_expired(now);
        list
    }

    fn drop_expired(&mut self, now: Time) {
        self.lists.retain(|_, list| {
            list.drop_expired(now);
            !list.entries.is_empty() || list.revoked.is_some()
        });
    }

    #[cfg(feature = "mutants")]
    pub(super) fn list_of(&self, user: &UserKey, now: Time) -> (Vec<(SessionHandle, Time, bool)>, Option<Time>) {
        let Some(list) = self.lists.get(user) else { return (Vec::new(), None) };
        let entries = list.entries.iter().filter(|(_, entry)| entry.until > now);
        let entries = entries.map(|(session, entry)| (*session, entry.until, entry.doomed));
        (entries.collect(), list.revoked.filter(|at| *at + REVOCATION_STAYS > now))
    }

    pub(super) fn enter(&mut self, user: &UserKey, enter: &Enter, now: Time) -> Entered {
        if now > enter.not_after {
            return Entered::Late;
        }
        let list = self.of(user, now);
        if let Some(stale) = enter.instead_of.filter(|_| Rule::StaleEntriesAreDropped.holds()) {
            list.entries.remove(&stale);
        }
        let since_revoked = list.revoked.map(|at| now.since(at));
        if since_revoked.is_some_and(|since| since <= enter.age) && Rule::RevocationsAreRemembered.holds() {
            return Entered::Revoked;
        }
        let until = now + enter.life;
        let entry = list.entries.entry(enter.session).or_insert(Entry { until, doomed: false });
        if entry.doomed {
            return Entered::Doomed;
        }
        entry.until = entry.until.max(until);
        if let Some(cap) = enter.cap.filter(|_| Rule::CapsDoomInTheEnter.holds()) {
            list.keep_to(cap, enter.session);
        }
        Entered::Entered { since_revoked, doomed: list.doomed() }
    }

    pub(super) fn prolong(&mut self, user: &UserKey, prolong: &Prolong, now: Time) -> Prolonged {
        if now > prolong.not_after {
            return Prolonged::Late;
        }
        let until = now + prolong.life;
        let list = self.of(user, now);
        match list.entries.get_mut(&prolong.session) {
            Some(entry) if entry.doomed => Prolonged::Doomed,
            Some(entry) => {
                entry.until = entry.until.max(until);
                Prolonged::Prolonged
            }
            None if prolong.add || !Rule::MissingEntriesAreAskedAfter.holds() => {
                list.entries.insert(prolong.session, Entry { until, doomed: false });
                Prolonged::Prolonged
            }
            None => Prolonged::Missing,
        }
    }

    pub(super) fn doom(&mut self, user: &UserKey, doom: &Doom, now: Time) -> Doomed {
        if now > doom.not_after {
            return Doomed::Late;
        }
        let list = self.of(user, now);
        let named = |session| list.entries.get(&session).map(|entry| entry.doomed);
        match doom.which {
            Which::Only(session) if named(session).is_none() => return Doomed::Missing,
            Which::AllBut(session) if Rule::WhoStaysMustBeListed.holds() => match named(session) {
                Some(true) => return Doomed::Yourself,
                None => return Doomed::Missing,
                Some(false) => {}
            },
            _ => {}
        }
        let goes = |session| match doom.which {
            Which::Only(only) => session == only,
            Which::AllBut(stays) => session != stays,
            Which::All => true,
        };
        list.doom(goes);
        if !matches!(doom.which, Which::Only(_)) {
            list.revoked = Some(now);
        }
        // Those that an earlier one left behind are to be ended as well.
        Doomed::Doomed(list.entries.keys().copied().filter(|session| goes(*session)).collect())
    }

    pub(super) fn leave(&mut self, user: &UserKey, sessions: &[SessionHandle]) {
        if let Some(list) = self.lists.get_mut(user) {
            for session in sessions {
                list.entries.remove(session);
            }
        }
    }

    pub(super) fn standing(&self, user: &UserKey, session: SessionHandle, now: Time) -> Option<Standing> {
        let entry = self.lists.get(user)?.entries.get(&session).filter(|entry| entry.until > now)?;
        Some(if entry.doomed { Standing::Doomed } else { Standing::Listed })
    }

    pub(super) fn sessions(&self, user: &UserKey, now: Time) -> Vec<SessionHandle> {
        let list = self.lists.get(user).into_iter().flat_map(|list| &list.entries);
        list.filter(|(_, entry)| !entry.doomed && entry.until > now).map(|(session, _)| *session).collect()
    }
}

impl List {
    /// Dooms those that would expire first, until no more than `cap` are left beside the new one.
    fn keep_to(&mut self, cap: usize, new: SessionHandle) {
        let mut others: Vec<(Time, SessionHandle)> = self
            .entries
            .iter()
            .filter(|(session, entry)| !entry.doomed && **session != new)
            .map(|(session, entry)| (entry.until, *session))
            .collect();
        others.sort();
        let too_many = (others.len() + 1).saturating_sub(cap.max(1));
        for (_, session) in &others[..too_many.min(others.len())] {
            if let Some(entry) = self.entries.get_mut(session) {
                entry.doomed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::user::User;

    #[test]
    fn nothing_is_left_of_lists_that_nobody_uses_any_more() {
        let (mut lists, mut now) = (Lists::default(), Time::from_millis(1 << 40));
        let life = Duration::from_secs(60);
        for user in 0..10 * FEW {
            let user = User::new(user).unwrap().key(&"main".into());
            let enter = Enter {
                session: SessionHandle([1; 16]),
                life,
                cap: None,
                age: Duration::ZERO,
                instead_of: None,
                not_after: Time::MAX,
            };
            assert!(matches!(lists.enter(&user, &enter, now), Entered::Entered { .. }));
            now = now + life;
            assert!(lists.lists.len() <= 2 * FEW, "{}", lists.lists.len());
        }
        lists.drop_expired(now);
        assert!(lists.lists.is_empty());
    }
}
