//! This process's threads, as Linux sees them. Elsewhere nothing tells whether a thread sleeps, and it is given
//! a moment.

#[cfg(target_os = "linux")]
use std::fs;
#[cfg(target_os = "linux")]
use std::path::{Path, PathBuf};

#[cfg(not(target_os = "linux"))]
const MOMENT: std::time::Duration = std::time::Duration::from_millis(50);

/// The threads whose name starts with `prefix`: their directories in /proc, and their names.
#[cfg(target_os = "linux")]
pub fn threads(prefix: &str) -> Vec<(PathBuf, String)> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let named = tasks.filter_map(|task| {
        let task = task.ok()?.path();
        let name = fs::read_to_string(task.join("comm")).ok()?;
        Some((task, name.trim_end().to_owned()))
    });
    named.filter(|(_, name)| name.starts_with(prefix)).collect()
}

#[cfg(target_os = "linux")]
fn is_asleep(task: &Path) -> bool {
    let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}

/// Waits until the thread of that name sleeps in the kernel.
pub fn until_asleep(name: &str) {
    #[cfg(target_os = "linux")]
    super::eventually("a thread that sleeps", || {
        // The system keeps so much of a name.
        let kept = &name[..name.len().min(15)];
        threads(kept).first().is_some_and(|(task, _)| is_asleep(task))
    });
    #[cfg(not(target_os = "linux"))]
    {
        let _any = name;
        std::thread::sleep(MOMENT);
    }
}

/// Waits until all other threads sleep, in three looks one after the other.
pub fn until_all_others_sleep() {
    #[cfg(target_os = "linux")]
    {
        let own = fs::read_link("/proc/thread-self").unwrap();
        let mut looks = 0;
        super::eventually("other threads that all sleep", || {
            let mut others = threads("").into_iter().map(|(task, _)| task);
            let asleep = others.all(|task| task.file_name() == own.file_name() || is_asleep(&task));
            looks = if asleep { looks + 1 } else { 0 };
            looks == 3
        });
    }
    #[cfg(not(target_os = "linux"))]
    std::thread::sleep(MOMENT);
}
