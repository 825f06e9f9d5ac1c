//! What stands in the place of `tls.rs` in a build without the feature `tls`: nothing can be asked of it.

use fred::types::config::{Config, Server};
use redis_session_core::Error;

/// Whether this build speaks TLS. (A pool of the application's may all the same.)
pub(crate) const IS_BUILT_IN: bool = false;

/// No settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls(());

impl Tls {
    /// Leaves the settings of a client as they are: a URL that wants TLS was refused when it was read.
    pub(crate) async fn secure(self, config: Config, _: bool) -> Result<Config, Error> {
        Ok(config)
    }

    /// None.
    pub(crate) fn name(&self) -> Option<&str> {
        None
    }
}

/// Left to the client, which takes the host.
pub(crate) fn name(_: &mut Server, _: Option<&str>, _: &Config) {}

/// Nothing, since nothing here can tell.
pub(crate) fn what_is_wrong(_: &str) -> Option<&'static str> {
    None
}
