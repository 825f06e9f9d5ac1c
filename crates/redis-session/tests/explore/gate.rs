//! Where a handler may take its time: before and between its calls to the session.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A handler waits here until the explorer lets it through.
#[derive(Default)]
pub(crate) struct Gate(Mutex<Place>);

/// Where the handler is.
#[derive(Default)]
enum Place {
    #[default]
    Elsewhere,
    Waiting(Waker),
    LetThrough,
}

impl Gate {
    pub(crate) async fn pass(&self) {
        poll_fn(|context| {
            let mut place = self.place();
            if matches!(*place, Place::LetThrough) {
                *place = Place::Elsewhere;
                return Poll::Ready(());
            }
            *place = Place::Waiting(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn somebody_waits(&self) -> bool {
        matches!(*self.place(), Place::Waiting(_))
    }

    pub(crate) fn let_through(&self) {
        let before = std::mem::replace(&mut *self.place(), Place::LetThrough);
        if let Place::Waiting(waker) = before {
            waker.wake();
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
