//! A listener, seen from outside.

use super::core::Core;
use crate::sync::{Key, Observed, Sheet, retire};

impl Observed for Core {
    fn key(&self) -> Option<Key> {
        self.first_polls.is_on().then(|| ("listener", self.name.clone()))
    }

    fn observe(&self, sheet: &mut Sheet) {
        let stats = self.stats();
        sheet.count("callbridge_listener_frames_total", stats.frames);
        sheet.level("callbridge_listener_connections", stats.open as usize);
        let accepted = [("kept", stats.accepted), ("refused", stats.refused)];
        sheet.counts("callbridge_listener_accepted_total", "outcome", accepted);
        sheet.level("callbridge_listener_in_flight", stats.in_flight as usize);
        let requests = [
            ("replied", stats.replies),
            ("no_reply", stats.no_reply),
            ("late", stats.late),
            ("panicked", stats.panicked),
            ("aborted", stats.aborted),
            ("reply_failed", stats.reply_errors),
        ];
        sheet.counts("callbridge_listener_requests_total", "outcome", requests);
        let errors = [
            ("decode", stats.decode_errors),
            ("accept", stats.accept_errors),
            ("connection", stats.failed_connections),
            ("retried", stats.retries),
            ("transient", stats.source.transient_errors),
        ];
        sheet.counts("callbridge_listener_errors_total", "what", errors);
        let lost = [
            ("kernel", stats.source.kernel_drops.unwrap_or(0)),
            ("truncated", stats.source.truncated),
            ("skipped", stats.source.skipped),
            ("reply", stats.replies_lost),
        ];
        sheet.counts("callbridge_listener_lost_total", "what", lost);
        sheet.level("callbridge_listener_quiet", stats.quiet as usize);
        sheet.count("callbridge_listener_went_quiet_total", stats.went_quiet);
        sheet.count("callbridge_listener_slow_polls_total", stats.slow_polls);
        sheet.times("callbridge_listener_first_poll_seconds", &self.first_polls);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        retire(self.key(), |sheet| self.observe(sheet));
    }
}
