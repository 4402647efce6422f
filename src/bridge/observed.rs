//! A bridge, seen from outside.

use super::core::Core;
use crate::sync::{Key, Observed, Sheet, retire};

impl Observed for Core {
    fn key(&self) -> Option<Key> {
        self.timings.call.is_on().then(|| ("bridge", self.name.as_str().into()))
    }

    fn observe(&self, sheet: &mut Sheet) {
        let stats = self.stats();
        sheet.level("callbridge_bridge_in_flight", stats.in_flight);
        sheet.peak("callbridge_bridge_high_water", stats.high_water);
        sheet.count("callbridge_bridge_submitted_total", stats.submitted);
        sheet.count("callbridge_bridge_refused_total", stats.refused);
        if let Some(alarm) = &self.alarm {
            let (told, ongoing) = alarm.stalls();
            sheet.count("callbridge_bridge_stalls_total", told);
            sheet.level("callbridge_bridge_stalled", ongoing);
        }
        let outcomes = [
            ("finished", stats.finished),
            ("cancelled", stats.cancelled),
            ("panicked", stats.panicked),
            ("loop_closed", stats.loop_closed),
        ];
        sheet.counts("callbridge_bridge_calls_total", "outcome", outcomes);
        sheet.times("callbridge_bridge_first_poll_seconds", &self.timings.first_poll);
        sheet.times("callbridge_bridge_call_seconds", &self.timings.call);
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        retire(self.key(), |sheet| self.observe(sheet));
    }
}
