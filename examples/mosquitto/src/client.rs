use crate::callbacks::{Callbacks, Link, Subscriptions};
use crate::error::CallError;
use crate::event::{Event, QoS};
use crate::library::Library;
use crate::receipts::{Delivery, Receipts};
use crate::settings::Settings;
use crate::tally::Tally;
use bytes::Bytes;
use callbridge::channel::{Stats, WeakSender};
use callbridge::ffi::UserDataStats;
use callbridge::{DedicatedThread, FrameStream, channel};
use std::ffi::CString;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// An MQTT client for async code. Clone it to use it from several tasks.
///
/// Dropping the last clone ends it in the background, [`close`](Self::close) tells how that went.
#[derive(Clone)]
pub struct Client {
    library: DedicatedThread<Library>,
    receipts: Arc<Receipts>,
    subscriptions: Arc<Subscriptions>,
    link: watch::Receiver<Link>,
    /// Weak: the stream ends with the callbacks.
    events: WeakSender<Event>,
    tally: Arc<Tally>,
}

impl Client {
    /// Connects to a broker and waits until it has accepted.
    ///
    /// From then on the library's thread keeps the connection: when it is lost, it tries again every
    /// second and asks for the subscriptions again.
    pub async fn connect(settings: Settings) -> Result<(Client, FrameStream<Event>), CallError> {
        let late = Instant::now() + settings.connect_timeout;
        let (sender, events) = channel::builder()
            .capacity(settings.capacity)
            .overflow(settings.overflow)
            .build()
            .map_err(|error| CallError::Refused(error.to_string()))?;
        let (told, link) = watch::channel(Link::Down);
        let receipts = Arc::new(Receipts::new(settings.max_in_flight));
        let subscriptions = Arc::new(Mutex::default());
        let tally = Arc::new(Tally::default());
        let weak = sender.downgrade();
        let callbacks = Callbacks {
            hand_over: Box::new(sender.callback()),
            events: sender,
            receipts: Arc::clone(&receipts),
            subscriptions: Arc::clone(&subscriptions),
            link: told,
            tally: Arc::clone(&tally),
        };
        let library = DedicatedThread::builder()
            .name("mqtt-calls")
            .spawn(move || Library::start(&settings, callbacks));
        // A call that still waits for the network then ends by itself, and the library with it.
        let library = timeout_at(late, library).await.map_err(|_| CallError::NoAnswer)?;
        let library = library.map_err(CallError::of_start)?;
        let client = Client { library, receipts, subscriptions, link, events: weak, tally };
        match timeout_at(late, client.settled()).await {
            Ok(Some(Link::Up)) => Ok((client, events)),
            Ok(Some(Link::Refused(code))) => {
                Err(CallError::Refused(format!("the broker refuses the connection, code {code}")))
            }
            Ok(_) => Err(CallError::Closed),
            Err(_) => Err(CallError::NoAnswer),
        }
    }

    async fn settled(&self) -> Option<Link> {
        let mut link = self.link.clone();
        link.wait_for(|link| *link != Link::Down).await.ok().map(|link| *link)
    }

    /// Waits until there is a connection.
    pub async fn connected(&self) -> Result<(), CallError> {
        let mut link = self.link.clone();
        link.wait_for(|link| *link == Link::Up).await.map(drop).map_err(|_| CallError::Closed)
    }

    /// Waits until there is no connection.
    pub async fn disconnected(&self) -> Result<(), CallError> {
        let mut link = self.link.clone();
        link.wait_for(|link| *link != Link::Up).await.map(drop).map_err(|_| CallError::Closed)
    }

    /// Hands a message to the library, as soon as fewer than the limit are in flight.
    ///
    /// The library has it when this returns; the [`Delivery`] tells when it arrived. At QoS 1 and 2 it
    /// is also taken without a connection, and sent after the reconnect.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped may have sent the message or not.
    ///
    /// # Errors
    ///
    /// A [`CallError`]; the message isn't sent.
    pub async fn publish(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
        qos: QoS,
    ) -> Result<Delivery, CallError> {
        let topic = CString::new(topic)?;
        let payload = payload.into();
        let permit = self.receipts.permit().await;
        let receipts = Arc::clone(&self.receipts);
        let sent = self.library.call(move |library| {
            let departure = receipts.depart(Some(permit), qos == QoS::AtMostOnce);
            let id = library.publish(&topic, &payload, qos as i32)?;
            Ok(receipts.expect(id, departure))
        });
        sent.await.map_err(|error| CallError::of_thread(&error))?
    }

    /// Asks for the messages of a topic pattern, now and after each reconnect.
    ///
    /// The [`Delivery`] tells when the broker has confirmed it.
    ///
    /// # Errors
    ///
    /// A [`CallError`]; after [`CallError::NotConnected`] it will be asked for after the reconnect.
    pub async fn subscribe(&self, pattern: &str, qos: QoS) -> Result<Delivery, CallError> {
        let pattern = CString::new(pattern)?;
        let receipts = Arc::clone(&self.receipts);
        let subscriptions = Arc::clone(&self.subscriptions);
        let sent = self.library.call(move |library| {
            let wanted = (pattern.clone(), qos as i32);
            subscriptions.lock().unwrap_or_else(PoisonError::into_inner).push(wanted);
            let departure = receipts.depart(None, true);
            let id = library.subscribe(&pattern, qos as i32)?;
            Ok(receipts.expect(id, departure))
        });
        sent.await.map_err(|error| CallError::of_thread(&error))?
    }

    /// What the library delivered, taken in its callback before the bridge.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Messages and subscriptions that wait for their receipts.
    pub fn in_flight(&self) -> usize {
        self.receipts.awaited()
    }

    /// Disconnects, ends and joins the library's thread, and frees what its callbacks used.
    ///
    /// The stream ends; what is queued in it stays readable. It is the client's own thread that waits for
    /// the library's, never the event loop. What hasn't ended at the deadline is named in the report,
    /// and freed when it ends after all.
    pub async fn close(self, deadline: Duration) -> CloseReport {
        let late = Instant::now() + deadline;
        // Ahead of the calls that are queued, so that none of them waits behind a full stream.
        let stream = self.events.upgrade().map(|events| {
            events.close();
            events.stats()
        });
        let callbacks = match timeout(deadline, self.library.call(Library::stop)).await {
            Ok(Ok(callbacks)) => Some(callbacks),
            Ok(Err(_)) | Err(_) => None,
        };
        let thread = self.library.close(late.saturating_duration_since(Instant::now())).await;
        CloseReport { callbacks, thread, stream }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("link", &*self.link.borrow())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// How a client was closed.
#[derive(Clone, Debug)]
#[must_use = "it names what did not stop"]
pub struct CloseReport {
    /// The callbacks' counters, if the library's thread was joined in time.
    pub callbacks: Option<UserDataStats>,
    /// How the thread ended that called the library.
    pub thread: callbridge::bridge::CloseReport,
    /// The stream's counters at the moment it was closed, unless it had ended before.
    pub stream: Option<Stats>,
}

impl CloseReport {
    /// Whether the library's thread was joined and everything freed in time.
    pub fn is_clean(&self) -> bool {
        self.callbacks.is_some() && self.thread.is_clean()
    }
}
