//! Ways for a thread to run a future on an event loop and wait for its result.

use super::event_loop::Loop;
use callbridge::{BlockingFuture, Bridge};
use std::future::Future;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub(crate) trait Caller: 'static {
    type Pending<T: Send + 'static>;

    fn new(on: &Loop) -> Self;

    fn submit<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Self::Pending<T>;

    fn wait<T: Send + 'static>(&self, pending: Self::Pending<T>) -> T;
}

/// The same in one piece, for those that poll the future on the calling thread as well.
pub(crate) trait Call {
    fn new(on: &Loop) -> Self;

    fn call<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T;
}

impl<C: Caller> Call for C {
    fn new(on: &Loop) -> Self {
        Caller::new(on)
    }

    fn call<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.wait(self.submit(future))
    }
}

const ANSWERED: &str = "the loop answers";

/// callbridge with default settings, or without its limit of calls in flight.
pub(crate) struct Ours<const UNBOUNDED: bool = false>(Bridge);

impl<const UNBOUNDED: bool> Caller for Ours<UNBOUNDED> {
    type Pending<T: Send + 'static> = BlockingFuture<T>;

    fn new(on: &Loop) -> Self {
        let bridge = Bridge::builder(on.handle().clone());
        Ours(if UNBOUNDED { bridge.unbounded() } else { bridge }.build().unwrap())
    }

    fn submit<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Self::Pending<T> {
        self.0.run_coroutine_threadsafe(future)
    }

    fn wait<T: Send + 'static>(&self, mut pending: Self::Pending<T>) -> T {
        pending.result(None).expect(ANSWERED)
    }
}

/// What people write: a task that sends its result.
macro_rules! spawn_and_send {
    ($(#[$doc:meta])* $name:ident, $receiver:ty, $pair:expr, $receive:ident) => {
        $(#[$doc])*
        pub(crate) struct $name(Handle);

        impl Caller for $name {
            type Pending<T: Send + 'static> = $receiver;

            fn new(on: &Loop) -> Self {
                Self(on.handle().clone())
            }

            fn submit<T: Send + 'static>(
                &self,
                future: impl Future<Output = T> + Send + 'static,
            ) -> Self::Pending<T> {
                let (result, pending) = $pair;
                self.0.spawn(async move {
                    let _ = result.send(future.await);
                });
                pending
            }

            fn wait<T: Send + 'static>(&self, pending: Self::Pending<T>) -> T {
                pending.$receive().expect(ANSWERED)
            }
        }
    };
}

spawn_and_send!(
    /// The hand-written bridge that the goals compare with.
    SpawnTokioOneshot,
    tokio::sync::oneshot::Receiver<T>,
    tokio::sync::oneshot::channel(),
    blocking_recv
);
spawn_and_send!(SpawnOneshot, oneshot::Receiver<T>, oneshot::channel(), recv);
spawn_and_send!(
    SpawnSyncChannel,
    std::sync::mpsc::Receiver<T>,
    std::sync::mpsc::sync_channel(1),
    recv
);

/// No task: `Handle::block_on` polls the future on the calling thread.
pub(crate) struct PolledByHandle(Handle);

impl Call for PolledByHandle {
    fn new(on: &Loop) -> Self {
        PolledByHandle(on.handle().clone())
    }

    fn call<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.0.block_on(future)
    }
}

/// No task either: callbridge polls the future on the calling thread, with its checks.
pub(crate) struct PolledByBridge(Bridge);

impl Call for PolledByBridge {
    fn new(on: &Loop) -> Self {
        PolledByBridge(Bridge::new(on.handle().clone()))
    }

    fn call<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.0.call(future, None).expect(ANSWERED)
    }
}

/// A task, waited for by `Handle::block_on`.
pub(crate) struct HandleBlockOn(Handle);

impl Caller for HandleBlockOn {
    type Pending<T: Send + 'static> = JoinHandle<T>;

    fn new(on: &Loop) -> Self {
        HandleBlockOn(on.handle().clone())
    }

    fn submit<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Self::Pending<T> {
        self.0.spawn(future)
    }

    fn wait<T: Send + 'static>(&self, pending: Self::Pending<T>) -> T {
        self.0.block_on(pending).expect(ANSWERED)
    }
}

/// A task, waited for by a general executor.
pub(crate) struct FuturesBlockOn(Handle);

impl Caller for FuturesBlockOn {
    type Pending<T: Send + 'static> = JoinHandle<T>;

    fn new(on: &Loop) -> Self {
        FuturesBlockOn(on.handle().clone())
    }

    fn submit<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Self::Pending<T> {
        self.0.spawn(future)
    }

    fn wait<T: Send + 'static>(&self, pending: Self::Pending<T>) -> T {
        futures::executor::block_on(pending).expect(ANSWERED)
    }
}
