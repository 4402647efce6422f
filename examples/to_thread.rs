//! Blocking calls in an async program, without stopping its event loop.
//!
//! A ticker task plays the part of everything else that the program does. First the blocking call is
//! made in a task, as one shouldn't: the ticker stops. Then it is made through `to_thread`: the
//! ticker ticks on. The rest shows arguments, results and panics; a pool of one's own that is
//! closed; a library bound to one thread; and a call that is cancelled while it is blocked. At the
//! end a call is abandoned, which doesn't hold up the exit.
//!
//!     cargo run --release --example to_thread

use callbridge::executor::CancelToken;
use callbridge::executor::CapacityLimiter;
use callbridge::{DedicatedThread, ResultError, ThreadPool, run_in_executor, to_thread};
use std::cell::Cell;
use std::error::Error;
use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// What an old library does: it keeps its thread for a while.
fn slow_double(number: u32) -> u32 {
    thread::sleep(Duration::from_millis(200));
    2 * number
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let ticks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ticks);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let ticked = || ticks.swap(0, Ordering::Relaxed);

    let answer = slow_double(21);
    println!("in the task:        {answer}, and the ticker ticked {} times", ticked());
    let answer = to_thread(|| slow_double(21)).await?;
    println!("through to_thread:  {answer}, and the ticker ticked {} times", ticked());

    // Begun at once, joined later.
    let first = to_thread(|| slow_double(1));
    let second = to_thread(|| slow_double(2));
    println!("two at a time:      {} and {}", first.await?, second.await?);

    // A panic is a value.
    match to_thread(|| "seven".parse::<u32>().unwrap()).await {
        Err(ResultError::Panicked(panic)) => println!("a panic:            {panic}"),
        other => return Err(format!("expected a panic: {other:?}").into()),
    }

    // A pool of one's own, made at the start and closed at the end.
    let pool = ThreadPool::builder().max_workers(8).name("legacy").build()?;
    let name = run_in_executor(&pool, || thread::current().name().map(str::to_owned)).await?;
    println!("a pool's thread:    {}", name.unwrap_or_default());

    // Three calls at a time.
    let limiter = CapacityLimiter::new(3);
    let calls: Vec<_> =
        (1..=6).map(|n| tokio::spawn(limiter.to_thread(move || slow_double(n)))).collect();
    let mut sum = 0;
    for call in calls {
        sum += call.await??;
    }
    println!("six, by threes:     {sum}");

    // A library that must stay on one thread: an `Rc` can't be sent anywhere.
    let counter = DedicatedThread::builder()
        .name("gpio")
        .spawn(|| Ok::<_, String>(Rc::new(Cell::new(0))))
        .await?;
    for n in 1..=3 {
        counter.call(move |total| total.set(total.get() + n)).await?;
    }
    println!("a dedicated thread: 1 + 2 + 3 = {}", counter.call(|total| total.get()).await?);
    println!("                    {}", counter.close(Duration::from_secs(5)).await);

    // A call that is blocked in a read: the cancel shuts its socket down, and it comes back.
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut silent = TcpStream::connect(listener.local_addr()?)?;
    let mut read = run_in_executor(&pool, move || {
        let socket = silent.try_clone()?;
        let token = CancelToken::current().expect("a job has a token");
        let _hook = token.on_cancel(move || drop(socket.shutdown(Shutdown::Both)));
        silent.read(&mut [0; 64])
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    read.cancel();
    println!("a cancelled read:   came back with {} bytes", read.await??);

    // Abandoned: nobody waits for it, not even the exit of the process.
    let forever = to_thread(|| thread::sleep(Duration::from_secs(3600)));
    let abandoned = tokio::time::timeout(Duration::from_millis(50), forever).await.is_err();
    println!("an abandoned call:  {abandoned}");
    println!("                    {}", pool.close(Duration::from_secs(5)).await);
    Ok(())
}
