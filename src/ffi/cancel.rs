//! Keeps `pthread_cancel` from acting while Rust code runs.
#![allow(unsafe_code)]

#[cfg(any(
    all(target_os = "linux", any(target_env = "gnu", target_env = "musl")),
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd",
))]
mod pthread {
    use std::ffi::c_int;

    #[cfg(target_vendor = "apple")]
    const DISABLE: c_int = 0;
    #[cfg(not(target_vendor = "apple"))]
    const DISABLE: c_int = 1;

    unsafe extern "C" {
        fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    }

    /// Cancellation is off on this thread for as long as it lives; then as it was before.
    pub(crate) struct CancelOff {
        before: Option<c_int>,
        /// The state belongs to one thread.
        _not_send: std::marker::PhantomData<*const ()>,
    }

    impl CancelOff {
        pub(crate) fn new() -> Self {
            let mut before = 0;
            // SAFETY: POSIX lets any thread set its own state, and `before` outlives the call.
            let failed = unsafe { pthread_setcancelstate(DISABLE, &raw mut before) };
            CancelOff { before: (failed == 0).then_some(before), _not_send: Default::default() }
        }
    }

    impl Drop for CancelOff {
        fn drop(&mut self) {
            if let Some(before) = self.before {
                let mut ignored = 0;
                // SAFETY: the state is one that the call above gave for this same thread (the guard
                // isn't `Send`), and `ignored` outlives the call.
                unsafe { pthread_setcancelstate(before, &raw mut ignored) };
            }
        }
    }
}

#[cfg(not(any(
    all(target_os = "linux", any(target_env = "gnu", target_env = "musl")),
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd",
)))]
mod pthread {
    /// There is no `pthread_cancel` here.
    pub(crate) struct CancelOff(());

    impl CancelOff {
        pub(crate) fn new() -> Self {
            CancelOff(())
        }
    }

    impl Drop for CancelOff {
        fn drop(&mut self) {}
    }
}

pub(super) use pthread::CancelOff;
