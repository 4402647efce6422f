use std::fmt;
use std::sync::Arc;

/// Makes a blocked [`FrameSource::next_frame`](super::FrameSource::next_frame) return soon.
///
/// It may run on any thread, more than once, and while nothing is blocked; it must not block. Once
/// what registered it is gone (the source, a [`StopGuard`](super::StopGuard)), it never runs again. The
/// default one does nothing: the source is left to its poll timeout.
///
/// # Examples
///
/// ```
/// use callbridge::listener::Interrupter;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use std::sync::Arc;
///
/// let broken = Arc::new(AtomicBool::new(false));
/// let flag = Arc::clone(&broken);
/// let interrupter = Interrupter::new(move || flag.store(true, Ordering::Release));
/// interrupter.interrupt();
/// assert!(broken.load(Ordering::Acquire));
/// ```
#[derive(Clone, Default)]
pub struct Interrupter {
    action: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Interrupter {
    /// An interrupter that runs `action`.
    pub fn new(action: impl Fn() + Send + Sync + 'static) -> Self {
        Interrupter { action: Some(Arc::new(action)) }
    }

    /// Runs the action; a panic in it is contained.
    pub fn interrupt(&self) {
        if let Some(action) = &self.action {
            crate::sync::contain("an interrupter", || action());
        }
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupter").field("set", &self.action.is_some()).finish()
    }
}
