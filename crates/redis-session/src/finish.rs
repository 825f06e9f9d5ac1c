//! A future that runs to its end although who awaits it goes away: what is dropped half-way goes on in a task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use redis_session_core::BoxFuture;

/// Runs where it is awaited; once begun, a drop moves it into a task of its own.
///
/// Cheaper than a task for each commit, of which nearly all are awaited to their end.
pub(crate) struct Finish<T: Send + 'static> {
    /// `None`: done, or panicked.
    rest: Option<BoxFuture<'static, T>>,
    begun: bool,
}

impl<T: Send + 'static> Finish<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { rest: Some(Box::pin(future)), begun: false }
    }
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        this.begun = true;
        // Taken out while it runs, so that one that panics is not polled again by the drop.
        let mut rest = this.rest.take().expect("a future is not polled after it was ready");
        let poll = rest.as_mut().poll(context);
        if poll.is_pending() {
            this.rest = Some(rest);
        }
        poll
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        let Some(rest) = self.rest.take().filter(|_| self.begun) else { return };
        // Without a runtime the process is going down: then the store's own checks keep the record whole.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(rest);
        }
    }
}
