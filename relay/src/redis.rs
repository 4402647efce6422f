//! A Redis stream as an engine.
//!
//! It shows that the engine can be exchanged: the forwarder, its window and its order stay what they are.

use crate::id::MessageId;
use crate::publish::{
    After, Attempt, Bound, BoxError, Fault, Message, Publish, Said, Stored, Ticket,
};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A Redis stream, written to by one [`Forwarder`](crate::Forwarder) and nobody else.
///
/// Entries are numbered: `1-0`, `2-0`, and so on, each with the fields `id`, `subject` and `data`. A repeat is known by
/// its number, however late it comes. What is acknowledged is as safe as the server's settings make it: with
/// `appendfsync always` it is on disk.
pub struct RedisStream {
    client: Client,
    key: String,
    connection: Option<Connected>,
    unanswered: FuturesUnordered<BoxFuture<'static, Answer>>,
}

type Answer = (Ticket, Result<(u64, u64), RedisError>);

/// A connection, and the script's name on its server.
struct Connected {
    connection: MultiplexedConnection,
    script: String,
}

/// Where the stream's end is; 0 if there is none.
const END: &str = "
local function last()
    local at = 0
    if redis.call('EXISTS', KEYS[1]) == 1 then
        local info = redis.call('XINFO', 'STREAM', KEYS[1])
        for i = 1, #info, 2 do
            if info[i] == 'last-generated-id' then at = tonumber(string.match(info[i + 1], '^%d+')) end
        end
    end
    return at
end
";

/// Stores an entry behind the last, if that is the one it comes after; otherwise says whether it is there.
const STORE: &str = "
local at, previous, id = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local before = last()
local function id_at(position)
    local there = redis.call('XRANGE', KEYS[1], position .. '-0', position .. '-0')
    return there[1] and there[1][2][2]
end
if before == at or previous ~= '' and id_at(before) == previous then
    redis.call('XADD', KEYS[1], (before + 1) .. '-0', 'id', id, 'subject', ARGV[4], 'data', ARGV[5])
    return {1, before + 1}
end
if at >= 0 and id_at(at + 1) == id then return {2, at + 1} end
return {0, 0}
";

const BIND: &str = "
local at = last()
local there = redis.call('XRANGE', KEYS[1], at .. '-0', at .. '-0')
return {at, there[1] and there[1][2][2] or ''}
";

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(1);

impl RedisStream {
    /// The stream at `key` of a server, `redis://host:port`; the first message makes it.
    ///
    /// # Errors
    ///
    /// If the address is none. Whether a server is there is seen when the forwarder starts.
    pub fn new(server: &str, key: impl Into<String>) -> Result<Self, BoxError> {
        let client = Client::open(server)?;
        let unanswered = FuturesUnordered::new();
        Ok(RedisStream { client, key: key.into(), connection: None, unanswered })
    }

    async fn connected(&mut self) -> Result<&mut Connected, RedisError> {
        if self.connection.is_none() {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                // The forwarder sees to the time.
                .set_response_timeout(None);
            let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await?;
            let text = format!("{END}{STORE}");
            let load = redis::cmd("SCRIPT").arg("LOAD").arg(text).to_owned();
            let script = load.query_async(&mut connection).await?;
            self.connection = Some(Connected { connection, script });
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    fn judge(
        &mut self,
        ticket: Ticket,
        answer: Result<(u64, u64), RedisError>,
        said: &mut Vec<Said>,
    ) {
        let result = match answer {
            Ok((1, position)) => Ok(Stored { position: Some(position), repeat: false }),
            Ok((2, position)) => Ok(Stored { position: Some(position), repeat: true }),
            Ok(_) => Err(Fault::OutOfOrder),
            Err(error) if error.code() == Some("OOM") => Err(Fault::Full(error.into())),
            Err(error) if error.code() == Some("WRONGTYPE") => Err(Fault::rejected(error)),
            Err(error) => {
                // A new connection loads the script again, too.
                self.connection = None;
                Err(Fault::passing(error))
            }
        };
        said.push(Said::Outcome(ticket, result));
    }
}

impl Publish for RedisStream {
    async fn bind(&mut self) -> Result<Bound, Fault> {
        let key = self.key.clone();
        let connected = self.connected().await.map_err(Fault::passing)?;
        let mut eval = redis::cmd("EVAL");
        eval.arg(format!("{END}{BIND}")).arg(1).arg(key);
        let asked = eval.query_async::<(u64, String)>(&mut connected.connection).await;
        match asked {
            Ok((position, last)) => Ok(Bound { position: Some(position), last: last.parse().ok() }),
            Err(error) => {
                self.connection = None;
                Err(Fault::passing(error))
            }
        }
    }

    async fn send(&mut self, attempt: Attempt<'_>, message: Message) -> Result<(), Fault> {
        let key = self.key.clone();
        let connected = self.connected().await.map_err(Fault::passing)?;
        let mut store = redis::cmd("EVALSHA");
        store.arg(&connected.script).arg(1).arg(key);
        let (at, previous) = match attempt.after {
            After::Position(position) => (i64::try_from(position).unwrap_or(-1), String::new()),
            After::Message(sequence) => {
                (-1, MessageId::new(Arc::clone(attempt.run), sequence).to_string())
            }
            After::Anything => (-1, String::new()),
        };
        store.arg(at).arg(previous).arg(attempt.id().to_string());
        store.arg(&*message.subject).arg(&message.payload[..]);
        let (ticket, mut connection) = (attempt.ticket, connected.connection.clone());
        let mut answer = async move { (ticket, store.query_async(&mut connection).await) }.boxed();
        // Polled once here, it stands in the connection's line in its turn.
        match (&mut answer).now_or_never() {
            Some(answer) => self.unanswered.push(std::future::ready(answer).boxed()),
            None => self.unanswered.push(answer),
        }
        Ok(())
    }

    async fn outcomes(&mut self, said: &mut Vec<Said>) {
        let Some((ticket, answer)) = self.unanswered.next().await else {
            return std::future::pending().await;
        };
        self.judge(ticket, answer, said);
        while let Some(Some((ticket, answer))) = self.unanswered.next().now_or_never() {
            self.judge(ticket, answer, said);
        }
    }
}

impl fmt::Debug for RedisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStream").field("key", &self.key).finish_non_exhaustive()
    }
}
