//! Where ids and versions come from: the system's generator, or a scripted one in a test.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Kind};

type Fill = dyn Fn(&mut [u8]) -> Result<(), Error> + Send + Sync;

thread_local! {
    /// Random bytes for versions that nobody has had yet; whoever takes some takes them away.
    static STOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What the generator is asked for at a time, for the stock: a hundred versions.
const STOCKED: usize = 600;

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

    /// The same for what is no secret: from a stock of the system's random bytes, since a system call for each version
    /// costs more than all else about it.
    pub(crate) fn stocked<const N: usize>(&self) -> Result<[u8; N], Error> {
        if self.0.is_some() {
            return self.array();
        }
        STOCK.with_borrow_mut(|stock| {
            if stock.len() < N {
                let mut fresh = vec![0; STOCKED];
                self.fill(&mut fresh)?;
                *stock = fresh;
            }
            let mut bytes = [0; N];
            bytes.copy_from_slice(&stock[stock.len() - N..]);
            stock.truncate(stock.len() - N);
            Ok(bytes)
        })
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Random(scripted)" } else { "Random(system)" })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn what_is_in_stock_is_handed_out_once() {
        let draw = || (0..1_000).map(|_| Random::system().stocked::<6>().unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(draw)).collect();
        let drawn: Vec<[u8; 6]> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 4_000);
        assert!(!drawn.contains(&[0; 6]));
    }

    #[test]
    fn a_scripted_generator_is_asked_each_time() {
        let asked = Arc::new(std::sync::atomic::AtomicU8::new(0));
        let random = Random::scripted(move |bytes| {
            bytes.fill(asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
            Ok(())
        });
        assert_eq!([(); 3].map(|()| random.stocked::<2>().unwrap()), [[0; 2], [1; 2], [2; 2]]);
    }
}
