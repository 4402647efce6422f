//! How long things take, for the feature `metrics`; without it nothing is measured, and none of this is
//! there when the crate is built.
//!
//! A look at the clock costs as much as a ready call, so only some of many are measured.

#[cfg(not(feature = "metrics"))]
pub(crate) use off::{Began, Timing};
#[cfg(feature = "metrics")]
pub(crate) use on::{Began, Timing, seconds_of};

#[cfg(feature = "metrics")]
mod on {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::{Duration, Instant};

    /// Buckets per doubling of the time: a time is known to within an eighth.
    const STEPS: usize = 4;

    /// Up to 2⁴¹ ns, more than half an hour; what takes longer counts there.
    const BUCKETS: usize = 41 * STEPS;

    /// So many are all measured, and then one in so many.
    const FIRST: u64 = 16;
    const ONE_IN: u64 = 128;

    /// How often something took how long.
    pub(crate) struct Timing(Option<Box<[AtomicU64; BUCKETS]>>);

    /// When something began, if it is measured.
    #[derive(Clone, Copy)]
    pub(crate) struct Began(Option<Instant>);

    impl Began {
        pub(crate) const UNMEASURED: Began = Began(None);

        /// Out of the way of the many that aren't measured.
        #[cold]
        fn now() -> Self {
            Began(Some(Instant::now()))
        }
    }

    impl Timing {
        pub(crate) fn new() -> Self {
            Timing(Some(Box::new([const { AtomicU64::new(0) }; BUCKETS])))
        }

        /// Measures nothing.
        pub(crate) const fn none() -> Self {
            Timing(None)
        }

        #[inline]
        pub(crate) fn is_on(&self) -> bool {
            self.0.is_some()
        }

        /// The `number`th of its kind begins now: measured if its number says so.
        #[inline]
        pub(crate) fn begin(&self, number: impl FnOnce() -> u64) -> Began {
            if self.0.is_none() {
                return Began::UNMEASURED;
            }
            let number = number();
            if number < FIRST || number % ONE_IN == 0 { Began::now() } else { Began::UNMEASURED }
        }

        /// What began then is over.
        #[inline]
        pub(crate) fn end(&self, began: Began) {
            if let Began(Some(began)) = began {
                self.record(began.elapsed());
            }
        }

        #[cold]
        pub(crate) fn record(&self, took: Duration) {
            if let Some(buckets) = &self.0 {
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                buckets[bucket_of(nanos)].fetch_add(1, Relaxed);
            }
        }

        /// How many fell into each bucket so far; see [`seconds_of`].
        pub(crate) fn read(&self) -> Box<[u64]> {
            let buckets = self.0.iter().flat_map(|buckets| buckets.iter());
            buckets.map(|count| count.load(Relaxed)).collect()
        }
    }

    fn bucket_of(nanos: u64) -> usize {
        let nanos = nanos.max(STEPS as u64);
        let doublings = nanos.ilog2() as usize;
        let step = (nanos >> (doublings - 2)) as usize % STEPS;
        (doublings * STEPS + step).min(BUCKETS - 1)
    }

    /// The middle of a bucket, in seconds.
    pub(crate) fn seconds_of(bucket: usize) -> f64 {
        let (doublings, step) = (bucket / STEPS, bucket % STEPS);
        let scale = 2_f64.powi(doublings as i32) / STEPS as f64;
        ((STEPS + step) as f64 + 0.5) * scale / 1e9
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_time_is_known_to_within_an_eighth() {
            for nanos in (4..5_000).chain((5_000..5_000_000_000).step_by(7_654_321)) {
                let read = seconds_of(bucket_of(nanos)) * 1e9;
                let off = (read - nanos as f64).abs() / nanos as f64;
                assert!(off <= 0.125, "{nanos} ns read as {read}");
            }
            assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
            assert_eq!(bucket_of(0), bucket_of(4));
        }

        #[test]
        fn the_first_are_all_measured_and_then_some() {
            let timing = Timing::new();
            (0..2 * ONE_IN).for_each(|number| timing.end(timing.begin(|| number)));
            assert_eq!(timing.read().iter().sum::<u64>(), FIRST + 1);
            let none = Timing::none();
            none.end(none.begin(|| 0));
            assert!(none.read().is_empty());
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use std::time::Duration;

    pub(crate) struct Timing;

    #[derive(Clone, Copy)]
    pub(crate) struct Began;

    impl Began {
        pub(crate) const UNMEASURED: Began = Began;
    }

    impl Timing {
        pub(crate) fn new() -> Self {
            Timing
        }

        pub(crate) const fn none() -> Self {
            Timing
        }

        pub(crate) const fn is_on(&self) -> bool {
            false
        }

        #[inline]
        pub(crate) fn begin(&self, _number: impl FnOnce() -> u64) -> Began {
            Began
        }

        #[inline]
        pub(crate) fn end(&self, _began: Began) {}

        #[inline]
        pub(crate) fn record(&self, _took: Duration) {}
    }
}
