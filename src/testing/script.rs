use crate::listener::FrameSource;
use crate::sync::{Deadline, Monitor, WaitError};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::Duration;

/// Makes a source that does what the test says, and the script that tells it.
///
/// The source is a [`FrameSource`] of any frames. Where the frames are bytes it is [`Read`] as well: each is
/// what one read gives, so a test tears frames wherever it likes.
///
/// # Examples
///
/// ```
/// use callbridge::Listener;
/// use callbridge::channel::Ending;
/// use callbridge::listener::ReadSource;
/// use callbridge::testing::script;
/// use std::io;
/// use tokio_util::codec::LinesCodec;
///
/// let (device, script) = script::<&[u8]>();
/// let source = ReadSource::new(device, 80, LinesCodec::new())?;
/// let (_listener, mut lines) = Listener::builder(source).spawn()?;
/// script.frame(b"tor").nothing().frame(b"n\nwhole\n").fail(io::Error::other("unplugged"));
/// assert_eq!(lines.recv_blocking(None).unwrap(), "torn");
/// assert_eq!(lines.recv_blocking(None).unwrap(), "whole");
/// assert!(lines.recv_blocking(None).is_err());
/// assert_eq!(lines.ending(), Some(Ending::Failed));
/// # Ok::<(), io::Error>(())
/// ```
pub fn script<F: Send + 'static>() -> (ScriptedSource<F>, Script<F>) {
    let steps = Steps { queue: VecDeque::new(), over: false };
    let steps = Arc::new(Monitor::new(steps));
    let source = ScriptedSource {
        steps: Arc::clone(&steps),
        poll_timeout: Duration::from_millis(50),
        rest: None,
    };
    (source, Script { steps })
}

struct Steps<F> {
    queue: VecDeque<Step<F>>,
    /// Whether no more will come.
    over: bool,
}

enum Step<F> {
    Frame(F),
    Block,
    Fail(io::Error),
    Panic(String),
}

impl<F> Steps<F> {
    fn blocks(&self) -> bool {
        matches!(self.queue.front(), Some(Step::Block))
    }

    /// What to do next; outside `None` while there is nothing, inside it at the end.
    fn take(&mut self) -> Option<Option<Step<F>>> {
        if self.blocks() && (self.over || self.queue.len() > 1) {
            self.queue.pop_front();
        }
        if self.blocks() {
            return None;
        }
        match self.queue.pop_front() {
            None => self.over.then_some(None),
            step => Some(step),
        }
    }
}

/// What tells a [`ScriptedSource`] what to do; made by [`script()`].
///
/// Steps can be given beforehand, and while the source runs. Dropping the script ends the source after
/// the last step.
pub struct Script<F> {
    steps: Arc<Monitor<Steps<F>>>,
}

impl<F> Script<F> {
    fn then(&self, step: Step<F>) -> &Self {
        self.steps.change(|steps| steps.queue.push_back(step));
        self
    }

    /// The source gives a frame; or a read gives these bytes, none of which is the end.
    pub fn frame(&self, frame: F) -> &Self {
        self.then(Step::Frame(frame))
    }

    /// The source says at once that nothing has arrived.
    pub fn nothing(&self) -> &Self {
        self.fail(ErrorKind::WouldBlock.into())
    }

    /// The source hangs, deaf to its poll timeout and to a stop, until another step is given.
    pub fn block(&self) -> &Self {
        self.then(Step::Block)
    }

    /// The source fails; asked again, it goes on with the next step.
    pub fn fail(&self, error: io::Error) -> &Self {
        self.then(Step::Fail(error))
    }

    /// The source panics.
    pub fn panic(&self, message: impl Into<String>) -> &Self {
        self.then(Step::Panic(message.into()))
    }

    /// Waits until the source has come to the last step.
    ///
    /// # Blocking
    ///
    /// Up to `timeout`.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](WaitError::TimedOut) if the source wasn't asked often enough;
    /// [`WouldDeadlock`](WaitError::WouldDeadlock) on a thread that drives an event loop.
    pub fn wait_taken(&self, timeout: impl Into<Option<Duration>>) -> Result<(), WaitError> {
        let taken = |steps: &mut Steps<F>| steps.queue.is_empty().then_some(());
        self.steps.wait(Deadline::after(timeout), taken)
    }
}

impl<F> Drop for Script<F> {
    fn drop(&mut self) {
        self.steps.change(|steps| steps.over = true);
    }
}

impl<F> fmt::Debug for Script<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.steps.with(|steps| steps.queue.len());
        f.debug_struct("Script").field("left", &left).finish()
    }
}

/// A source that does what its [`Script`] says; made by [`script()`].
///
/// Without a step to do, it waits for the next one up to its poll timeout.
pub struct ScriptedSource<F> {
    steps: Arc<Monitor<Steps<F>>>,
    poll_timeout: Duration,
    /// What didn't fit into the last read, and how much of it did.
    rest: Option<(F, usize)>,
}

impl<F: Send + 'static> FrameSource for ScriptedSource<F> {
    type Frame = F;

    fn next_frame(&mut self) -> io::Result<Option<F>> {
        let deadline = match self.steps.with(|steps| steps.blocks()) {
            true => Deadline::Never,
            false => Deadline::after(self.poll_timeout),
        };
        let step = self.steps.wait(deadline, Steps::take);
        // Whoever waits until all is taken is told.
        self.steps.change(|_| ());
        match step {
            Ok(None) => Ok(None),
            Ok(Some(Step::Frame(frame))) => Ok(Some(frame)),
            Ok(Some(Step::Fail(error))) => Err(error),
            Ok(Some(Step::Panic(message))) => std::panic::panic_any(message),
            Ok(Some(Step::Block)) | Err(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn set_poll_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.poll_timeout = timeout;
        Ok(())
    }
}

impl<F: AsRef<[u8]> + Send + 'static> Read for ScriptedSource<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (piece, at) = match self.rest.take() {
            Some(rest) => rest,
            None => match self.next_frame()? {
                Some(piece) => (piece, 0),
                None => return Ok(0),
            },
        };
        let left = &piece.as_ref()[at..];
        let length = left.len().min(buffer.len());
        buffer[..length].copy_from_slice(&left[..length]);
        if length < left.len() {
            self.rest = Some((piece, at + length));
        }
        Ok(length)
    }
}

impl<F> fmt::Debug for ScriptedSource<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedSource").finish_non_exhaustive()
    }
}
