//! Whose sessions a request's are, where one application serves many tenants: the realm, and what else is their own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use http::request::Parts;
use redis_session_core::{Kind, Store};

use crate::cookie::Cookie;
use crate::ended::Watchers;
use crate::error::Error;
use crate::layer::{RedisSessionLayer, Settings, check_page};
use crate::queue::Queue;
use crate::sessions::Sessions;

/// The most characters of a tenant's name.
const LONGEST: usize = 64;
/// The settings of so many tenants are kept made, and at most twice as many: the ones that were asked for lately.
const KEPT: usize = 1024;

/// One of many whom an application serves, each with sessions of its own: a customer's shop, a company's office.
///
/// Its name is part of every key in Redis and of every signature: `sess:main.acme:…`. So cookies, tokens, handles and
/// [`Sessions`] of one tenant mean nothing to another, and user 7 of the one is not user 7 of the other. Whose a request
/// is, [`RedisSessionLayer::tenants`] says. Cheap to clone.
///
/// ```
/// use redis_session::{Cookie, Tenant};
///
/// let acme = Tenant::named("acme")?.cookie(Cookie::named("__Host-acme"))?.log_in_page("/acme/login")?;
/// assert_eq!(acme.name(), "acme");
/// assert!(Tenant::named("acme:main").unwrap_err().is_config());
/// # Ok::<(), redis_session::Error>(())
/// ```
#[derive(Clone)]
pub struct Tenant(Arc<Own>);

/// What a tenant has of its own. `None`: what the layer has.
#[derive(Clone)]
struct Own {
    name: Arc<str>,
    place: Option<Place>,
    cookie: Option<Cookie>,
    log_in_page: Option<String>,
    step_up_page: Option<String>,
}

/// A store, and what this process keeps about its sessions.
#[derive(Clone)]
struct Place {
    store: Arc<dyn Store>,
    queue: Arc<Queue>,
    watchers: Arc<Watchers>,
}

impl Tenant {
    /// A tenant with the layer's store and cookie. A name has small letters, digits, `-`, `_` and `.`, 64 at most, so a host
    /// without its port will do.
    ///
    /// # Errors
    /// `is_config`: the name has other characters, none, or too many.
    pub fn named(name: impl AsRef<str>) -> Result<Self, Error> {
        let name = name.as_ref();
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=LONGEST).contains(&name.len()) || !name.bytes().all(fits) {
            let message =
                "a tenant's name has small letters, digits, \"-\", \"_\" and \".\" only, and 64 at most: \"acme\"";
            return Err(Error::new(Kind::Config, message));
        }
        let (name, place) = (name.into(), None);
        Ok(Self(Arc::new(Own { name, place, cookie: None, log_in_page: None, step_up_page: None })))
    }

    /// A store of its own: another Redis, another database of it, or another user there, whose rights end with this
    /// tenant's keys. Default: the layer's.
    ///
    /// Make such a tenant once, and hand out clones: each call makes what goes with a store anew.
    pub fn store(self, store: impl Store) -> Self {
        let place = Place { store: Arc::new(store), queue: Arc::default(), watchers: Arc::default() };
        self.with(|own| own.place = Some(place))
    }

    /// A cookie of its own. Default: the layer's. Tenants on one host need one each, of its own name: under one name the
    /// session of the one takes the place of the other's in the browser.
    ///
    /// # Errors
    /// `is_config`: as [`Cookie::check`].
    pub fn cookie(self, cookie: Cookie) -> Result<Self, Error> {
        cookie.check()?;
        Ok(self.with(|own| own.cookie = Some(cookie)))
    }

    /// As [`RedisSessionLayer::log_in_page`], for this tenant. Default: the layer's.
    ///
    /// # Errors
    /// `is_config`: not a path of this site.
    pub fn log_in_page(self, path: impl Into<String>) -> Result<Self, Error> {
        let path = path.into();
        check_page(&path)?;
        Ok(self.with(|own| own.log_in_page = Some(path)))
    }

    /// As [`RedisSessionLayer::step_up_page`], for this tenant. Default: the layer's.
    ///
    /// # Errors
    /// `is_config`: not a path of this site.
    pub fn step_up_page(self, path: impl Into<String>) -> Result<Self, Error> {
        let path = path.into();
        check_page(&path)?;
        Ok(self.with(|own| own.step_up_page = Some(path)))
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    fn with(mut self, change: impl FnOnce(&mut Own)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

/// The same settings, and the same store.
impl PartialEq for Tenant {
    fn eq(&self, other: &Self) -> bool {
        let same = |one: &Own, other: &Own| {
            let places = match (&one.place, &other.place) {
                (None, None) => true,
                (Some(one), Some(other)) => Arc::ptr_eq(&one.store, &other.store),
                _ => false,
            };
            let pages = one.log_in_page == other.log_in_page && one.step_up_page == other.step_up_page;
            places && pages && one.name == other.name && one.cookie == other.cookie
        };
        Arc::ptr_eq(&self.0, &other.0) || same(&self.0, &other.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").field("name", &self.0.name).field("cookie", &self.0.cookie).finish_non_exhaustive()
    }
}

impl<L> RedisSessionLayer<L> {
    /// Says whose sessions a request's are: by its host, its path, a header that a trusted proxy sets, or what a layer
    /// around this one has put into its extensions. Default: there are no tenants.
    ///
    /// `None` is for whom nobody knows. Who asks for a session then gets an error (`is_unknown_tenant`, status 404); routes
    /// that need none are served.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use redis_session::{Error, KeyRing, MemoryStore, RedisSessionLayer, Session, Tenant};
    /// # use redis_session_testkit::Browser;
    ///
    /// async fn count(session: Session) -> Result<String, Error> {
    ///     session.increment("visits", 1)?;
    ///     Ok(format!("{}: {:?}", session.tenant().unwrap_or_default(), session.get::<u64>("visits")?))
    /// }
    ///
    /// # fn main() -> Result<(), Error> {
    /// let (acme, globex) = (Tenant::named("acme")?, Tenant::named("globex")?);
    /// let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?).tenants(move |parts| {
    ///     let named = || parts.headers.get("host")?.to_str().ok(); // HTTP/2 has it in the URI
    ///     match parts.uri.host().or_else(named)?.split(':').next()? {
    ///         "acme.example" => Some(acme.clone()),
    ///         "globex.example" => Some(globex.clone()),
    ///         _ => None,
    ///     }
    /// });
    /// let app: Router = Router::new().route("/", get(count)).layer(layer);
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let browser = Browser::new(app);
    /// assert_eq!(browser.get("https://acme.example/").await.body, "acme: Some(1)");
    /// assert_eq!(browser.get("https://acme.example/").await.body, "acme: Some(2)");
    /// assert_eq!(browser.get("https://globex.example/").await.body, "globex: Some(1)");
    /// assert_eq!(browser.get("https://initech.example/").await.status, 404);
    /// # });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It is called once for each request, and must not block.
    ///
    /// # Security
    /// Answer with tenants that exist, and with no others: the host, the path and most headers are the visitor's to choose.
    pub fn tenants(self, of: impl Fn(&Parts) -> Option<Tenant> + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.tenants = Some(Tenants { of: Arc::new(of), made: Arc::default() }))
    }

    /// The sessions of a tenant's users, for use outside of requests. Within one, the extractor [`Sessions`] has those of
    /// the request's own tenant, and [`sessions`](Self::sessions) those of no tenant.
    pub fn sessions_of(&self, tenant: &Tenant) -> Sessions<L> {
        Sessions::of(self.settings.of_tenant(tenant))
    }
}

/// Whose a request is.
type Of = dyn Fn(&Parts) -> Option<Tenant> + Send + Sync;

/// Whose requests are, and what was made for whom.
#[derive(Clone)]
pub(crate) struct Tenants {
    of: Arc<Of>,
    made: Arc<RwLock<Made>>,
}

impl Tenants {
    /// The same, with nothing made: for a layer whose settings are others now.
    pub(crate) fn afresh(&self) -> Self {
        Self { of: self.of.clone(), made: Arc::default() }
    }

    fn made(&self) -> RwLockReadGuard<'_, Made> {
        self.made.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> RwLockWriteGuard<'_, Made> {
        self.made.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The settings of tenants that were asked for lately, and those of before. What is neither is made again.
#[derive(Default)]
struct Made {
    lately: HashMap<Arc<str>, (Tenant, Arc<Settings>)>,
    before: HashMap<Arc<str>, (Tenant, Arc<Settings>)>,
}

impl Made {
    fn keep(&mut self, tenant: Tenant, settings: Arc<Settings>) {
        if self.lately.len() >= KEPT {
            self.before = std::mem::take(&mut self.lately);
        }
        self.lately.insert(tenant.0.name.clone(), (tenant, settings));
    }
}

impl Settings {
    /// The settings for a request. `None`: it is of no tenant that is known.
    pub(crate) fn of_request(self: &Arc<Self>, tenants: &Tenants, parts: &Parts) -> Option<Arc<Self>> {
        (tenants.of)(parts).map(|tenant| self.of_tenant(&tenant))
    }

    /// The settings for a tenant's sessions: those of the layer but for what the tenant has of its own.
    fn of_tenant(self: &Arc<Self>, tenant: &Tenant) -> Arc<Self> {
        let Some(tenants) = &self.tenants else { return Arc::new(self.make_for(tenant)) };
        if let Some((known, settings)) = tenants.made().lately.get(&tenant.0.name)
            && known == tenant
        {
            return settings.clone();
        }
        let mut made = tenants.make();
        let before = made.before.remove(&tenant.0.name);
        let known = made.lately.get(&tenant.0.name).cloned().or(before);
        let settings = match known {
            Some((known, settings)) if known == *tenant => settings,
            known => {
                let settings = Arc::new(self.make_for(tenant));
                if known.is_some() {
                    let message = "a tenant came with other settings than before: make each once, and hand out clones";
                    tracing::warn!(target: "redis_session", realm = &*settings.realm, "{message}");
                }
                settings
            }
        };
        made.keep(tenant.clone(), settings.clone());
        settings
    }

    /// The longest deadline of the layer's store and of those of tenants that came lately.
    pub(crate) fn longest_deadline(&self) -> Duration {
        let own = self.store.deadline();
        let Some(tenants) = &self.tenants else { return own };
        let made = tenants.made();
        let theirs = made.lately.values().chain(made.before.values()).map(|(_, settings)| settings.store.deadline());
        theirs.fold(own, Duration::max)
    }

    fn make_for(&self, tenant: &Tenant) -> Self {
        let Own { name, place, cookie, log_in_page, step_up_page } = Own::clone(&tenant.0);
        let mut settings = self.clone();
        settings.tenants = None;
        // A session of before does not say whose it is.
        settings.predecessor = None;
        // A layer's own realm has no dot, so no two pairs of a layer and a tenant share a realm.
        settings.realm = [&self.realm, ".", &name].concat().into();
        if let Some(Place { store, queue, watchers }) = place {
            (settings.store, settings.queue, settings.watchers) = (store, queue, watchers);
        }
        settings.cookie = cookie.unwrap_or(settings.cookie);
        settings.log_in_page = log_in_page.or(settings.log_in_page);
        settings.step_up_page = step_up_page.or(settings.step_up_page);
        settings.tenant = Some(name);
        settings.derive_signers();
        settings
    }
}

#[cfg(test)]
mod tests {
    use redis_session_core::{KeyRing, MemoryStore};

    use super::*;

    fn layer() -> RedisSessionLayer {
        RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap()).tenants(|_| None)
    }

    fn tenant(name: impl AsRef<str>) -> Tenant {
        Tenant::named(name).unwrap()
    }

    #[test]
    fn what_a_tenant_needs_is_made_once_and_again_only_where_its_settings_are_others() {
        let settings = layer().settings;
        let first = settings.of_tenant(&tenant("acme"));
        assert!(Arc::ptr_eq(&first, &settings.of_tenant(&tenant("acme"))));
        assert_eq!(&*first.realm, "main.acme");
        let cookie = Cookie::named("__Host-acme");
        let other = settings.of_tenant(&tenant("acme").cookie(cookie.clone()).unwrap());
        assert_eq!((first.cookie.name(), other.cookie.name()), ("__Host-id", "__Host-acme"));
        assert!(Arc::ptr_eq(&other, &settings.of_tenant(&tenant("acme").cookie(cookie).unwrap())));
        let with_page = settings.of_tenant(&tenant("acme").log_in_page("/acme/login").unwrap());
        assert_eq!(with_page.log_in_page.as_deref(), Some("/acme/login"));
    }

    #[test]
    fn a_store_of_its_own_comes_with_a_queue_of_its_own_and_is_shared_by_clones() {
        let settings = layer().settings;
        let acme = tenant("acme").store(MemoryStore::new());
        let made = settings.of_tenant(&acme);
        assert!(!Arc::ptr_eq(&made.queue, &settings.queue) && !Arc::ptr_eq(&made.watchers, &settings.watchers));
        assert!(Arc::ptr_eq(&made, &settings.of_tenant(&acme.clone())));
        assert_ne!(acme, tenant("acme").store(MemoryStore::new()));
        let shared = settings.of_tenant(&tenant("globex"));
        assert!(Arc::ptr_eq(&shared.queue, &settings.queue) && Arc::ptr_eq(&shared.watchers, &settings.watchers));
    }

    #[test]
    fn r90_however_many_tenants_come_what_is_kept_is_bounded_and_those_in_use_stay() {
        let settings = layer().settings;
        let (busy, first) = (tenant("busy"), settings.of_tenant(&tenant("busy")));
        for number in 0..3 * KEPT {
            settings.of_tenant(&tenant(number.to_string()));
            assert!(Arc::ptr_eq(&first, &settings.of_tenant(&busy)), "{number}");
        }
        let made = settings.tenants.as_ref().unwrap().made();
        assert!(made.lately.len() <= KEPT && made.before.len() <= KEPT);
    }
}
