//! How long a session lives: the layer's policy, a session's own wishes, and the one place that computes deadlines.

use std::time::Duration;

use crate::error::{Error, Kind};
use crate::time::{Time, millis};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// When sessions end: idle, absolute, and remembered timeouts. All are enforced by the server, in Redis's time.
///
/// The default is 30 minutes idle and 12 hours in all. The policy is applied when a session is loaded, so a shorter
/// one reaches living sessions with the deployment.
///
/// ```
/// use redis_session_core::Expiry;
/// use std::time::Duration;
///
/// const HOUR: Duration = Duration::from_secs(3600);
/// let expiry = Expiry::idle(HOUR).absolute(10 * HOUR).remembered(30 * 24 * HOUR);
/// assert!(expiry.check().is_ok());
/// assert!(Expiry::idle(Duration::MAX).check().is_err()); // an endless session cannot be configured
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    idle: Duration,
    absolute: Duration,
    remembered: Duration,
    touch_every: Duration,
    new_id_every: Option<Duration>,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { idle: 30 * MINUTE, absolute: 12 * HOUR, remembered: 30 * DAY, touch_every: MINUTE, new_id_every: None }
    }
}

impl Expiry {
    /// The shortest timeout: 100 milliseconds.
    pub const SHORTEST: Duration = Duration::from_millis(100);
    /// The longest: 400 days. Cookies cannot live longer (RFC 6265bis, section 5.5), so neither do sessions.
    pub const LONGEST: Duration = Duration::from_secs(400 * 24 * 60 * 60);

    /// NIST SP 800-63B-4, section 2.1.3 (AAL1): 30 days in all; 7 days idle is our choice, the standard names none.
    pub const AAL1: Self = Self {
        idle: DAY.saturating_mul(7),
        absolute: DAY.saturating_mul(30),
        remembered: DAY.saturating_mul(30),
        touch_every: MINUTE,
        new_id_every: None,
    };
    /// NIST SP 800-63B-4, section 2.2.3 (AAL2): 24 hours in all, one hour idle.
    pub const AAL2: Self = Self { idle: HOUR, absolute: DAY, remembered: DAY, touch_every: MINUTE, new_id_every: None };
    /// NIST SP 800-63B-4, section 2.3.3 (AAL3): 12 hours in all, 15 minutes idle.
    pub const AAL3: Self = Self {
        idle: MINUTE.saturating_mul(15),
        absolute: HOUR.saturating_mul(12),
        remembered: HOUR.saturating_mul(12),
        touch_every: MINUTE,
        new_id_every: None,
    };

    /// Ends a session this long after its last request; the rest is as in the default: the absolute timeout of 12 hours
    /// holds all the same, so whoever gives more here says what it is too ([`absolute`](Self::absolute)).
    pub fn idle(idle: Duration) -> Self {
        Self { idle, ..Self::default() }
    }

    /// Ends a session this long after it was created, whatever its visitor does. Default: 12 hours.
    pub fn absolute(self, absolute: Duration) -> Self {
        Self { absolute, ..self }
    }

    /// The longest that a session which asked to be remembered lives. Default: 30 days.
    pub fn remembered(self, remembered: Duration) -> Self {
        Self { remembered, ..self }
    }

    /// Renews the idle timeout of a session that is only read at most this often, and at least ten times within its
    /// idle timeout. Default: one minute. Until then reading writes nothing; an idle visitor is gone between the
    /// idle timeout and that much later, never earlier. Zero: one write for each request that reads its session.
    pub fn touch_every(self, interval: Duration) -> Self {
        Self { touch_every: interval, ..self }
    }

    /// Gives the session of a user a new id this often, so that a copy of its cookie is of use for so long only (the
    /// renewal timeout of OWASP's Session Management Cheat Sheet). Default: never. Sessions without a user have nothing to
    /// protect, and keep theirs.
    ///
    /// Nobody notices: the old id works until a request came with the new one, and for a minute after that. An old id that
    /// turns up later is a copy that somebody has kept, and an event.
    pub fn new_id_every(self, interval: Duration) -> Self {
        Self { new_id_every: Some(interval), ..self }
    }

    /// How often the session of a user gets a new id. `None`: never.
    pub fn renewal(&self) -> Option<Duration> {
        self.new_id_every
    }

    /// Whether these timeouts can be kept.
    ///
    /// # Errors
    /// [`is_config`](Error::is_config): one is below 100 milliseconds or over 400 days.
    pub fn check(&self) -> Result<(), Error> {
        for (name, timeout) in [("idle", self.idle), ("absolute", self.absolute), ("remembered", self.remembered)] {
            check_timeout(name, timeout)?;
        }
        self.new_id_every.map_or(Ok(()), |interval| check_timeout("renewal", interval))
    }

    /// The numbers that stores work with.
    pub fn life(&self) -> Life {
        Life {
            idle: millis(clamp(self.idle)),
            absolute: millis(clamp(self.absolute)),
            touch: millis(self.touch_every.min(Expiry::LONGEST)),
        }
    }

    /// What a session that asks for an idle timeout of its own gets, in milliseconds; `None`: this policy's.
    ///
    /// # Errors
    /// [`is_config`](Error::is_config): below 100 milliseconds or over 400 days.
    pub fn own_idle(&self, wish: Option<Duration>) -> Result<Option<u64>, Error> {
        wish.map(|wish| check_timeout("session's own idle", wish).map(|()| millis(wish))).transpose()
    }

    /// How long a session that asks to be remembered for `wish` is remembered, in milliseconds.
    pub fn own_remembered(&self, wish: Duration) -> u64 {
        millis(clamp(wish.min(self.remembered)))
    }
}

/// Whether one timeout can be kept.
fn check_timeout(name: &str, timeout: Duration) -> Result<(), Error> {
    if (Expiry::SHORTEST..=Expiry::LONGEST).contains(&timeout) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Config,
        format!(
            "the {name} timeout must be between 100 milliseconds and 400 days (RFC 6265bis, section 5.5), not {timeout:?}"
        ),
    ))
}

fn clamp(timeout: Duration) -> Duration {
    timeout.clamp(Expiry::SHORTEST, Expiry::LONGEST)
}

/// The policy in milliseconds, as stores and scripts get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The idle timeout.
    pub idle: u64,
    /// The absolute timeout.
    pub absolute: u64,
    /// The longest touch interval.
    pub touch: u64,
}

/// What a session itself asks for; kept in its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Its own idle timeout in milliseconds. `None`: the layer's.
    pub idle: Option<u64>,
    /// Remembered until then, instead of the idle and absolute timeouts. `None`: not remembered.
    pub remembered: Option<Time>,
}

impl Life {
    /// The idle timeout of a session, in milliseconds.
    pub fn idle_of(&self, wishes: &Wishes) -> u64 {
        wishes.idle.unwrap_or(self.idle).min(millis(Expiry::LONGEST))
    }

    /// How long after a touch the next one is due: at most a tenth of the idle timeout.
    pub fn touch_of(&self, wishes: &Wishes) -> u64 {
        self.touch.min(self.idle_of(wishes) / 10)
    }

    /// When a session ends. The scripts compute the same (`deadline` in the Lua files), and the contract suite holds
    /// them together.
    pub fn deadline(&self, created: Time, seen: Time, wishes: &Wishes) -> Time {
        if let Some(until) = wishes.remembered {
            return until;
        }
        let idle = seen + Duration::from_millis(self.idle_of(wishes) + self.touch_of(wishes));
        idle.min(created + Duration::from_millis(self.absolute))
    }

    /// When a session ends for good if its visitor stays active: what a persistent cookie may promise.
    pub fn farthest(&self, created: Time, wishes: &Wishes) -> Time {
        wishes.remembered.unwrap_or(created + Duration::from_millis(self.absolute))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r52_an_endless_session_cannot_be_configured() {
        for expiry in [
            Expiry::idle(Duration::MAX),
            Expiry::default().absolute(Duration::MAX),
            Expiry::default().remembered(Expiry::LONGEST + Duration::from_secs(1)),
            Expiry::idle(Duration::ZERO),
        ] {
            assert!(expiry.check().is_err_and(|e| e.is_config()), "{expiry:?}");
        }
        assert!(Expiry::default().remembered(Expiry::LONGEST).check().is_ok());
    }

    #[test]
    fn r53_presets_are_the_numbers_of_nist() {
        for (preset, absolute, idle) in [
            (Expiry::AAL1, 30 * DAY, None),
            (Expiry::AAL2, 24 * HOUR, Some(HOUR)),
            (Expiry::AAL3, 12 * HOUR, Some(15 * MINUTE)),
        ] {
            assert_eq!(preset.absolute, absolute);
            assert!(idle.is_none_or(|idle| preset.idle == idle));
            assert!(preset.check().is_ok());
        }
    }

    #[test]
    fn r56_no_extreme_overflows_or_outlives_the_absolute_deadline() {
        let extremes = [0, 1, 999, 1000, u64::from(u32::MAX), u64::MAX / 2, u64::MAX];
        for idle in extremes {
            for absolute in extremes {
                for at in extremes {
                    let life =
                        Expiry::idle(Duration::from_millis(idle)).absolute(Duration::from_millis(absolute)).life();
                    let created = Time::from_millis(at);
                    for seen in extremes.map(Time::from_millis) {
                        for own in [None, Some(idle)] {
                            let deadline = life.deadline(created, seen, &Wishes { idle: own, remembered: None });
                            assert!(deadline <= created + Expiry::LONGEST);
                            assert!(deadline <= Time::MAX);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_idle_visitor_is_gone_between_the_timeout_and_one_interval_more() {
        let life = Expiry::default().life();
        let start = Time::from_millis(1_000_000);
        let deadline = life.deadline(start, start, &Wishes::default());
        assert_eq!(deadline.since(start), 31 * MINUTE);
        let own = Wishes { idle: Some(60_000), remembered: None };
        assert_eq!(life.deadline(start, start, &own).since(start), Duration::from_secs(66));
    }
}
