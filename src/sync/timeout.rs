//! A time limit for something that is awaited, without a timer of the runtime.

use super::prim::thread;
use super::{Deadline, Monitor};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// What the alarm's thread and its future tell each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alarm {
    Set,
    Rung,
    GivenUp,
}

/// Awaits `future` until the deadline; the waiting is timed by a short-lived thread of that name.
///
/// Where the system has no thread left, the time is up at once.
pub(crate) async fn timeout<F: Future>(
    deadline: Deadline,
    name: &str,
    future: F,
) -> Option<F::Output> {
    if deadline == Deadline::Never {
        return Some(future.await);
    }
    timeout_repeating(deadline, name, Duration::MAX, || (), future).await
}

/// As [`timeout`], and the thread calls `again` again and again.
pub(crate) async fn timeout_repeating<F: Future>(
    deadline: Deadline,
    name: &str,
    every: Duration,
    again: impl Fn() + Send + 'static,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let first = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(output) => return Some(output),
        Poll::Pending if deadline == Deadline::Now => return None,
        Poll::Pending => {}
    }
    let alarm = GiveUp(start(deadline, name, every, again));
    let mut rung = pin!(alarm.0.until(|alarm| (*alarm == Alarm::Rung).then_some(())));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => rung.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Lets the alarm's thread end early.
struct GiveUp(Arc<Monitor<Alarm>>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.change(|alarm| *alarm = Alarm::GivenUp);
    }
}

fn start(
    deadline: Deadline,
    name: &str,
    every: Duration,
    again: impl Fn() + Send + 'static,
) -> Arc<Monitor<Alarm>> {
    let alarm = Arc::new(Monitor::new(Alarm::Set));
    let clock = Arc::clone(&alarm);
    let given_up = |alarm: &mut Alarm| (*alarm == Alarm::GivenUp).then_some(());
    let ring = move || {
        while clock.wait(deadline.or_after(every), given_up).is_err() {
            if deadline.passed() {
                return clock.change(|alarm| *alarm = Alarm::Rung);
            }
            again();
        }
    };
    if thread::Builder::new().name(name.to_owned()).spawn(ring).is_err() {
        alarm.change(|alarm| *alarm = Alarm::Rung);
    }
    alarm
}
