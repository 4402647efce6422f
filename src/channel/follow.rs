//! One frame at a time, followed through the queue to see how long frames wait.
//!
//! Under the channel's lock. A frame that wakes the consumer is always followed, since that costs far more than
//! the look at the clock; where frames come faster, one in so many.

#[cfg(not(feature = "metrics"))]
pub(super) use off::Followed;
#[cfg(feature = "metrics")]
pub(super) use on::Followed;

#[cfg(feature = "metrics")]
mod on {
    use crate::sync::Timing;
    use std::time::Instant;

    const ONE_IN: u32 = 64;

    #[derive(Default)]
    pub(in super::super) struct Followed {
        frame: Option<Frame>,
        /// Frames that came since one was followed.
        passed: u32,
    }

    struct Frame {
        since: Instant,
        /// How many are before it in the queue.
        ahead: usize,
    }

    impl Followed {
        /// A frame comes, behind so many.
        #[inline]
        pub(in super::super) fn arrive(
            &mut self,
            timing: &Timing,
            wakes: bool,
            ahead: impl FnOnce() -> usize,
        ) {
            if !timing.is_on() || self.frame.is_some() {
                return;
            }
            self.passed += 1;
            if wakes || self.passed >= ONE_IN {
                self.passed = 0;
                self.frame = Some(Frame { since: Instant::now(), ahead: ahead() });
            }
        }

        /// So many are handed over, of those that came first.
        #[inline]
        pub(in super::super) fn leave(&mut self, timing: &Timing, frames: usize) {
            if let Some(frame) = self.lose(frames) {
                timing.record(frame.since.elapsed());
            }
        }

        /// So many are gone without having been handed over.
        #[inline]
        pub(in super::super) fn vanish(&mut self, frames: usize) {
            self.lose(frames);
        }

        #[inline]
        fn lose(&mut self, frames: usize) -> Option<Frame> {
            let followed = self.frame.as_mut()?;
            if followed.ahead < frames {
                return self.frame.take();
            }
            followed.ahead -= frames;
            None
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use crate::sync::Timing;

    #[derive(Default)]
    pub(in super::super) struct Followed(());

    impl Followed {
        #[inline]
        pub(in super::super) fn arrive(&mut self, _: &Timing, _: bool, _: impl FnOnce() -> usize) {}

        #[inline]
        pub(in super::super) fn leave(&mut self, _: &Timing, _: usize) {}

        #[inline]
        pub(in super::super) fn vanish(&mut self, _: usize) {}
    }
}
