//! A pool or a dedicated thread, seen from outside.

use super::core::Core;
use crate::sync::{Key, Observed, Sheet, retire};

impl<S: 'static> Observed for Core<S> {
    fn key(&self) -> Option<Key> {
        Some(("pool", self.settings.name.as_str().into()))
    }

    fn observe(&self, sheet: &mut Sheet) {
        let (jobs, threads) = (self.jobs(), self.workers.count());
        sheet.level("callbridge_pool_workers", threads.threads);
        sheet.level("callbridge_pool_idle", threads.idle);
        sheet.peak("callbridge_pool_high_water", threads.largest);
        sheet.level("callbridge_pool_busy", jobs.active as usize);
        sheet.level("callbridge_pool_queued", jobs.queued as usize);
        let outcomes = [("completed", jobs.completed), ("dropped", jobs.dropped)];
        sheet.counts("callbridge_pool_jobs_total", "outcome", outcomes);
        sheet.times("callbridge_pool_wait_seconds", &self.waited);
        sheet.times("callbridge_pool_job_seconds", &self.took);
    }
}

impl<S: 'static> Drop for Core<S> {
    fn drop(&mut self) {
        retire(self.key(), |sheet| self.observe(sheet));
    }
}
