//! Which auto traits the public handles have: who adds a field that takes one away hears of it here.

use callbridge::bridge::{BridgeBuilder, BridgeStats, CloseReport, StuckCall};
use callbridge::future::{
    AsCompleted, AsCompletedError, Canceller, Completer, FutureState, Panic, ReturnWhen,
    SubmitError,
};
use callbridge::{BlockingFuture, Bridge, ResultError, WaitError};
use std::cell::Cell;
use std::marker::{PhantomData, PhantomPinned};
use std::panic::{RefUnwindSafe, UnwindSafe};

/// Whether a type has a trait, as a constant.
macro_rules! has {
    ($type:ty: $trait:path) => {{
        #[allow(dead_code)]
        trait Otherwise {
            const HAS: bool = false;
        }
        impl<T: ?Sized> Otherwise for T {}
        #[allow(dead_code)]
        struct Asked<T: ?Sized>(PhantomData<T>);
        #[allow(dead_code)]
        impl<T: ?Sized + $trait> Asked<T> {
            const HAS: bool = true;
        }
        <Asked<$type>>::HAS
    }};
}

macro_rules! lacks {
    ($type:ty) => {
        [
            ("Send", has!($type: Send)),
            ("Sync", has!($type: Sync)),
            ("Unpin", has!($type: Unpin)),
            ("UnwindSafe", has!($type: UnwindSafe)),
            ("RefUnwindSafe", has!($type: RefUnwindSafe)),
        ]
        .into_iter()
        .filter_map(|(name, has)| (!has).then_some(name))
        .collect::<Vec<_>>()
    };
}

macro_rules! table {
    ($($type:ty: $lacks:expr,)*) => {
        let told = [$((stringify!($type), lacks!($type))),*];
        let expected = [$((stringify!($type), ($lacks as &[&str]).to_vec())),*];
        assert_eq!(told, expected);
    };
}

/// A value with no auto trait at all.
type Nothing = (*const Cell<u8>, PhantomPinned, PhantomData<&'static mut dyn FnMut()>);

/// A value that may be sent, and no more.
type Sent = (Cell<u8>, PhantomPinned);

#[test]
fn the_probe_tells_a_type_that_has_a_trait_from_one_that_has_not() {
    assert_eq!(lacks!(u8), &[] as &[&str]);
    let all = ["Send", "Sync", "Unpin", "UnwindSafe", "RefUnwindSafe"];
    assert_eq!(lacks!(Nothing), all);
    assert_eq!(lacks!(Sent), ["Sync", "Unpin", "RefUnwindSafe"]);
}

#[test]
fn handles_have_all_auto_traits() {
    table! {
        Bridge: &[],
        BridgeBuilder: &[],
        BridgeStats: &[],
        CloseReport: &[],
        StuckCall: &[],
        BlockingFuture<u8>: &[],
        Canceller: &[],
        Completer<u8>: &[],
        AsCompleted<u8>: &[],
        AsCompletedError<u8>: &[],
        FutureState: &[],
        ReturnWhen: &[],
        WaitError: &[],
        Panic: &[],
        // As in std's `io::Error`, there may be any error inside.
        SubmitError<u8>: &["UnwindSafe", "RefUnwindSafe"],
        ResultError: &["UnwindSafe", "RefUnwindSafe"],
    }
}

/// What is inside is handed over whole, never shared or pinned: it needs to be `Send`, for handles that
/// are `Send` and `Sync`, and no more.
#[test]
fn handles_of_values_that_are_only_send() {
    table! {
        BlockingFuture<Sent>: &[],
        Completer<Sent>: &[],
        AsCompleted<Sent>: &[],
        AsCompletedError<Sent>: &[],
        BlockingFuture<Nothing>: &["Send", "Sync"],
        Completer<Nothing>: &["Send", "Sync"],
        SubmitError<Sent>: &["Sync", "Unpin", "UnwindSafe", "RefUnwindSafe"],
    }
}

#[cfg(feature = "runner")]
#[test]
fn a_runners_handles() {
    use callbridge::ThreadRunner;
    use callbridge::runner::{
        BlockingIo, ExitError, Guard, ReadySignal, RunnerCloseReport, SharedRunner,
        ThreadRunnerBuilder, WeakRunner, WrapIter,
    };
    // There may be any error inside, and any stream.
    let any = ["UnwindSafe", "RefUnwindSafe"];
    table! {
        ThreadRunner: &[],
        WeakRunner: &[],
        SharedRunner: &[],
        Guard<u8>: &[],
        WrapIter<u8>: &any,
        ReadySignal<u8>: &[],
        BlockingIo<u8>: &[],
        ThreadRunnerBuilder: &[],
        RunnerCloseReport: &any,
        ExitError: &any,
    }
}
