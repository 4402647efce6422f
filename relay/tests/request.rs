//! Requests over NATS, with a real server.

mod common;

use bytes::Bytes;
use callbridge::Bridge;
use callbridge_relay::nats::{RequestError, Requester, Service, ServiceRequest, connect};
use callbridge_relay::server::NatsServer;
use common::LIMIT;
use std::convert::Infallible;
use std::sync::mpsc;
use std::time::{Duration, Instant};

async fn service<H, F, E>(server: &NatsServer, handler: H) -> Service
where
    H: Fn(ServiceRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Bytes, E>> + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let client = connect(server.url(), Default::default()).await.unwrap();
    Service::start(client, "meters.read", 4, handler).await.unwrap()
}

async fn requester(server: &NatsServer) -> Requester {
    Requester::new(connect(server.url(), Default::default()).await.unwrap(), "meters.read")
}

async fn shout(request: ServiceRequest) -> Result<Bytes, Infallible> {
    Ok(request.payload.to_ascii_uppercase().into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_thread_is_answered_by_a_service() {
    let server = NatsServer::start().unwrap();
    let service = service(&server, shout).await;
    let requester = requester(&server).await;
    let bridge = Bridge::current();
    let answer = std::thread::spawn(move || bridge.call(requester.request("hey", LIMIT), LIMIT));
    let answer = tokio::task::spawn_blocking(|| answer.join().unwrap()).await.unwrap();
    assert_eq!(&answer.unwrap().unwrap()[..], b"HEY");
    let stats = service.close(LIMIT).await;
    assert_eq!((stats.received, stats.answered, stats.in_flight), (1, 1, 0), "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_service_is_the_caller_knows_at_once() {
    let server = NatsServer::start().unwrap();
    let requester = requester(&server).await;
    let hour = Duration::from_secs(3600);
    let answer = tokio::time::timeout(LIMIT, requester.request("hey", hour)).await.unwrap();
    assert!(matches!(answer, Err(RequestError::NoService)), "{answer:?}");
    let running = service(&server, shout).await;
    assert!(requester.request("hey", LIMIT).await.is_ok());
    running.close(LIMIT).await;
    let answer = tokio::time::timeout(LIMIT, requester.request("hey", hour)).await.unwrap();
    assert!(matches!(answer, Err(RequestError::NoService)), "{answer:?}");
}

/// A write is not enough: the server may read another connection first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_knows_of_a_service_that_has_started_or_closed() {
    let server = NatsServer::start().unwrap();
    let requester = requester(&server).await;
    for round in 0..100 {
        let running = service(&server, shout).await;
        let answer = requester.request("hey", LIMIT).await;
        assert!(answer.is_ok(), "round {round}, started: {answer:?}");
        running.close(LIMIT).await;
        let answer = requester.request("hey", LIMIT).await;
        assert!(
            matches!(answer, Err(RequestError::NoService)),
            "round {round}, closed: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_fails_or_panics_says_so_at_once() {
    let server = NatsServer::start().unwrap();
    let service = service(&server, |request: ServiceRequest| async move {
        match &request.payload[..] {
            b"panic" => panic!("as told"),
            _ => Err::<Bytes, _>("no such\nmeter"),
        }
    })
    .await;
    let requester = requester(&server).await;
    for (question, why) in [("8", "no such meter"), ("panic", "its handler panicked")] {
        match requester.request(question, LIMIT).await {
            Err(RequestError::Failed(said)) => assert_eq!(said, why),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(service.close(LIMIT).await.failed, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_travels_along_and_stops_the_handler() {
    let server = NatsServer::start().unwrap();
    let (told, dropped) = mpsc::channel();
    struct OnDrop(mpsc::Sender<Option<Instant>>, Option<Instant>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }
    let service = service(&server, move |request: ServiceRequest| {
        let stopped = OnDrop(told.clone(), request.deadline);
        async move {
            let _stopped = stopped;
            std::future::pending::<Result<Bytes, Infallible>>().await
        }
    })
    .await;
    let requester = requester(&server).await;
    let (began, timeout) = (Instant::now(), Duration::from_millis(100));
    let answer = requester.request("hey", timeout).await;
    assert!(matches!(answer, Err(RequestError::TimedOut)), "{answer:?}");
    assert!(began.elapsed() >= timeout);
    let deadline = tokio::task::block_in_place(|| dropped.recv_timeout(LIMIT)).unwrap();
    assert!(deadline.is_some_and(|deadline| deadline >= began + timeout));
    assert_eq!(service.close(LIMIT).await.expired, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_the_caller_gets_a_timeout() {
    let mut server = NatsServer::start().unwrap();
    let requester = requester(&server).await;
    server.kill().unwrap();
    for _ in 0..3 {
        let asked = requester.request("hey", Duration::from_millis(50));
        let answer = tokio::time::timeout(LIMIT, asked).await.unwrap();
        assert!(matches!(answer, Err(RequestError::TimedOut)), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_there_again_after_the_server_was_killed() {
    let mut server = NatsServer::start().unwrap();
    let _service = service(&server, shout).await;
    let requester = requester(&server).await;
    server.kill().unwrap();
    server.restart().unwrap();
    let late = Instant::now() + LIMIT;
    while requester.request("hey", Duration::from_millis(200)).await.is_err() {
        assert!(Instant::now() < late);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_service_answers_what_it_has_taken() {
    let server = NatsServer::start().unwrap();
    let (told, begun) = mpsc::channel();
    let (go, wait) = tokio::sync::watch::channel(false);
    let service = service(&server, move |_: ServiceRequest| {
        let mut wait = wait.clone();
        let _ = told.send(());
        async move {
            let _ = wait.wait_for(|go| *go).await;
            Ok::<Bytes, Infallible>("done".into())
        }
    })
    .await;
    let requester = requester(&server).await;
    let asked = tokio::spawn(async move { requester.request("hey", LIMIT).await });
    tokio::task::block_in_place(|| begun.recv_timeout(LIMIT)).unwrap();
    let closing = tokio::spawn(service.close(LIMIT));
    go.send_replace(true);
    assert_eq!(&asked.await.unwrap().unwrap()[..], b"done");
    let stats = closing.await.unwrap();
    assert_eq!((stats.answered, stats.in_flight), (1, 0), "{stats}");
}
