//! What can be seen from outside, by kind and name: counters are read where they are kept, when somebody
//! asks, so that being seen costs what does the work nothing.
//!
//! Invariants:
//! 1. Of those with one kind and name, `live` has the ones that may still be there, and `gone` the sum of what
//!    the others had counted: a total never falls for good.
//! 2. No counter is read, and nothing observed dropped, while the lock is held.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Something that counts.
pub(crate) trait Observed: Send + Sync {
    /// What it is, and its name; `None` if it isn't to be seen.
    fn key(&self) -> Option<Key>;

    fn observe(&self, sheet: &mut Sheet);
}

/// What something is, and its name.
pub(crate) type Key = (&'static str, Box<str>);

/// What is read of something, or of all that have one name.
#[derive(Clone, Default)]
pub(crate) struct Sheet(pub(crate) Vec<Entry>);

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) metric: &'static str,
    pub(crate) label: Option<(&'static str, &'static str)>,
    pub(crate) value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    /// Only grows.
    Count(u64),
    /// How much there is now.
    Level(f64),
    /// The most that there was.
    Peak(f64),
    /// How many took how long, see `Timing`.
    Times(Box<[u64]>),
}

impl Sheet {
    pub(crate) fn count(&mut self, metric: &'static str, value: u64) {
        self.add(metric, None, Value::Count(value));
    }

    pub(crate) fn counts<const N: usize>(
        &mut self,
        metric: &'static str,
        label: &'static str,
        values: [(&'static str, u64); N],
    ) {
        for (of, value) in values {
            self.add(metric, Some((label, of)), Value::Count(value));
        }
    }

    pub(crate) fn level(&mut self, metric: &'static str, value: usize) {
        self.add(metric, None, Value::Level(value as f64));
    }

    pub(crate) fn peak(&mut self, metric: &'static str, value: usize) {
        self.add(metric, None, Value::Peak(value as f64));
    }

    pub(crate) fn times(&mut self, metric: &'static str, timing: &super::Timing) {
        self.add(metric, None, Value::Times(timing.read()));
    }

    /// Adds to what is there.
    fn add(
        &mut self,
        metric: &'static str,
        label: Option<(&'static str, &'static str)>,
        value: Value,
    ) {
        let same = |entry: &&mut Entry| entry.metric == metric && entry.label == label;
        let Some(entry) = self.0.iter_mut().find(same) else {
            return self.0.push(Entry { metric, label, value });
        };
        match (&mut entry.value, value) {
            (Value::Count(sum), Value::Count(more)) => *sum += more,
            (Value::Level(sum), Value::Level(more)) => *sum += more,
            (Value::Peak(most), Value::Peak(other)) => *most = most.max(other),
            (Value::Times(sums), Value::Times(more)) => {
                sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
            _ => debug_assert!(false, "{metric} is of two kinds"),
        }
    }

    fn merge(&mut self, other: Sheet) {
        for Entry { metric, label, value } in other.0 {
            self.add(metric, label, value);
        }
    }

    /// What is left of it when it is gone.
    fn ended(mut self) -> Self {
        for entry in &mut self.0 {
            if let Value::Level(level) = &mut entry.value {
                *level = 0.0;
            }
        }
        self
    }
}

#[derive(Default)]
struct Group {
    live: Vec<Weak<dyn Observed>>,
    gone: Sheet,
}

static GROUPS: Mutex<BTreeMap<Key, Group>> = Mutex::new(BTreeMap::new());

fn groups() -> MutexGuard<'static, BTreeMap<Key, Group>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on it is seen, if it has a name.
pub(crate) fn observe<O: Observed + 'static>(observed: &Arc<O>) {
    let Some(key) = observed.key() else { return };
    let weak = Arc::downgrade(observed) as Weak<dyn Observed>;
    groups().entry(key).or_default().live.push(weak);
}

/// Keeps what it has counted; called by its drop.
pub(crate) fn retire(key: Option<Key>, observe: impl FnOnce(&mut Sheet)) {
    let Some(key) = key else { return };
    let mut sheet = Sheet::default();
    observe(&mut sheet);
    if let Some(group) = groups().get_mut(&key) {
        group.live.retain(|live| live.strong_count() > 0);
        group.gone.merge(sheet.ended());
    }
}

/// All that is, and was, to be seen.
pub(crate) fn read() -> Vec<(Key, Sheet)> {
    let keys: Vec<Key> = groups().keys().cloned().collect();
    keys.into_iter()
        .map(|key| {
            let mut sheet = Sheet::default();
            let mut live = Vec::new();
            if let Some(group) = groups().get(&key) {
                live.extend(group.live.iter().filter_map(Weak::upgrade));
                sheet = group.gone.clone();
            }
            live.iter().for_each(|observed| observed.observe(&mut sheet));
            (key, sheet)
        })
        .collect()
}
