//! What the process holds now.

use crate::heap;
use callbridge::ThreadPool;
use std::fmt;

#[derive(Clone, Copy)]
pub(crate) struct Holdings {
    /// Without those of the process-wide pool, whose number follows its load.
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    pub(crate) resident_kib: u64,
    pub(crate) heap_kib: i64,
}

impl Holdings {
    pub(crate) fn now() -> Self {
        let pool = ThreadPool::shared().stats().workers;
        Holdings {
            threads: entries("/proc/self/task").saturating_sub(pool),
            descriptors: entries("/proc/self/fd"),
            resident_kib: resident_kib(),
            heap_kib: heap::live_bytes() / 1024,
        }
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holdings { threads, descriptors, resident_kib, heap_kib } = self;
        write!(
            f,
            "{threads} threads, {descriptors} descriptors, {resident_kib} KiB resident, \
             {heap_kib} KiB of heap"
        )
    }
}

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).expect("soak needs /proc").count()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("soak needs /proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).expect("VmRSS in /proc/self/status")
}
