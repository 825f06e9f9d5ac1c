//! Where ids and versions come from: the system's generator, or a scripted one in a test.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Kind};

type Fill = dyn Fn(&mut [u8]) -> Result<(), Error> + Send + Sync;

/// The source of randomness. [`Random::system`] is the only one fit for production.
#[derive(Clone)]
pub struct Random(Option<Arc<Fill>>);

impl Random {
    /// The operating system's generator.
    pub fn system() -> Self {
        Self(None)
    }

    /// A scripted generator, for tests of what happens when ids repeat or the generator fails.
    pub fn scripted(fill: impl Fn(&mut [u8]) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(fill)))
    }

    /// Fills the bytes, or fails closed: nothing weaker is ever put in its place.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        match &self.0 {
            Some(scripted) => scripted(bytes),
            None => getrandom::fill(bytes)
                .map_err(|e| Error::caused(Kind::Random, "the system's random generator failed", e)),
        }
    }

    /// An array of random bytes.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Random(scripted)" } else { "Random(system)" })
    }
}
