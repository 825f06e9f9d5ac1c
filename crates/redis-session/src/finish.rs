//! A future that runs to its end although who awaits it goes away: what is dropped half-way goes on in a task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use redis_session_core::BoxFuture;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Runs where it is awaited; once begun, a drop moves it into a task of its own.
///
/// Cheaper than a task for each commit, of which nearly all are awaited to their end.
pub(crate) struct Finish<T: Send + 'static> {
    /// `None`: done, or panicked.
    rest: Option<BoxFuture<'static, T>>,
    begun: bool,
    /// Whoever closes the layer waits for it.
    under_way: TaskTrackerToken,
}

impl<T: Send + 'static> Finish<T> {
    pub(crate) fn new(under_way: TaskTrackerToken, future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { rest: Some(Box::pin(future)), begun: false, under_way }
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
            self.under_way.task_tracker().spawn_on(rest, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio_util::task::TaskTracker;

    use super::*;

    /// A future that needs a few polls, and counts the steps that it has made.
    fn steps(tracker: &TaskTracker, made: &Arc<AtomicU32>) -> Finish<u32> {
        let made = made.clone();
        Finish::new(tracker.token(), async move {
            for _ in 0..3 {
                made.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
            made.load(Ordering::SeqCst)
        })
    }

    async fn poll_once<F: Future + Unpin>(future: &mut F) {
        std::future::poll_fn(|context| {
            let _ = Pin::new(&mut *future).poll(context);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_awaited_is_done_where_it_is_awaited() {
        let tracker = TaskTracker::new();
        assert_eq!(steps(&tracker, &Arc::default()).await, 3);
        assert!(tracker.is_empty());
    }

    #[tokio::test]
    async fn what_was_begun_goes_on_after_its_drop_and_what_was_not_does_not() {
        let (tracker, begun, never) = (TaskTracker::new(), Arc::default(), Arc::default());
        drop(steps(&tracker, &never));
        assert!(tracker.is_empty());
        let mut future = steps(&tracker, &begun);
        poll_once(&mut future).await;
        drop(future);
        assert_eq!((begun.load(Ordering::SeqCst), tracker.len()), (1, 1));
        tracker.close();
        tracker.wait().await;
        assert_eq!((begun.load(Ordering::SeqCst), never.load(Ordering::SeqCst)), (3, 0));
    }

    #[test]
    fn without_a_runtime_a_drop_is_quiet() {
        let made = Arc::default();
        let mut future = steps(&TaskTracker::new(), &made);
        let waker = std::task::Waker::noop();
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(waker)).is_pending());
        drop(future);
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}
