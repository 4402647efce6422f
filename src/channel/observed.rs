//! A channel, seen from outside.

use super::state::Shared;
use crate::sync::prim::lock;
use crate::sync::{Key, Observed, Sheet, retire};

impl<T: Send> Observed for Shared<T> {
    fn key(&self) -> Option<Key> {
        self.name()
    }

    fn observe(&self, sheet: &mut Sheet) {
        self.read(sheet);
    }
}

impl<T> Shared<T> {
    fn name(&self) -> Option<Key> {
        Some(("channel", self.rules.name.clone()?))
    }

    fn read(&self, sheet: &mut Sheet) {
        let stats = self.stats();
        sheet.level("callbridge_channel_depth", stats.queued as usize);
        // None is shown for a channel without a limit.
        if self.rules.capacity != usize::MAX {
            sheet.level("callbridge_channel_capacity", self.rules.capacity);
        }
        if self.rules.weighs() {
            let weight = lock(&self.state).queue.weight();
            sheet.level("callbridge_channel_weight", weight);
        }
        sheet.peak("callbridge_channel_high_water", stats.high_water as usize);
        sheet.count("callbridge_channel_offered_total", stats.offered);
        sheet.count("callbridge_channel_delivered_total", stats.delivered);
        sheet.count("callbridge_channel_refused_total", stats.refused);
        let lost = [
            ("overflow", stats.lost.overflow),
            ("evicted", stats.lost.evicted),
            ("consumer_dropped", stats.lost.consumer_dropped),
            ("closed", stats.lost.closed),
            ("shutdown", stats.lost.shutdown),
            ("too_heavy", stats.lost.too_heavy),
            ("send_cancelled", stats.lost.send_cancelled),
            ("would_deadlock", stats.lost.would_deadlock),
        ];
        sheet.counts("callbridge_channel_lost_total", "reason", lost);
        sheet.level("callbridge_channel_senders_waiting", stats.waiting as usize);
        sheet.count("callbridge_channel_blocked_total", stats.blocked.count);
        let blocked = u64::try_from(stats.blocked.time.as_micros()).unwrap_or(u64::MAX);
        sheet.count("callbridge_channel_blocked_microseconds_total", blocked);
        sheet.times("callbridge_channel_wait_seconds", &self.waited);
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        retire(self.name(), |sheet| self.read(sheet));
    }
}
