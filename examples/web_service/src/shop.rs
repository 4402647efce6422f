//! The web service itself: its state, its routes, and what a failed call looks like to a peer.

use crate::old::{Backends, Client};
use crate::ticker::Ticker;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use callbridge::{ResultError, ThreadPool, run_in_executor, to_thread};
use std::sync::Arc;

/// The app state; a clone is a handle to the same one.
#[derive(Clone)]
pub(crate) struct Shop {
    /// For the calls that are to be limited.
    pub(crate) pool: ThreadPool,
    prices: Client,
    stock: Client,
    ratings: Client,
    ticker: Arc<Ticker>,
}

impl Shop {
    /// Call it on the loop whose gaps are to be measured.
    pub(crate) fn open(backends: &Backends, limit: usize) -> Self {
        Shop {
            pool: ThreadPool::builder()
                .max_workers(limit)
                .name("old-call")
                .build()
                .expect("a limit from 1 up"),
            prices: backends.prices.client(),
            stock: backends.stock.client(),
            ratings: backends.ratings.client(),
            ticker: Arc::new(Ticker::start()),
        }
    }

    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/price/{item}", get(price))
            .route("/offer/{item}", get(offer))
            .route("/rating/{item}", get(rating))
            .route("/health", get(health))
            .with_state(self.clone())
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.ticker
    }
}

async fn price(State(shop): State<Shop>, Path(item): Path<u32>) -> Result<String, Failure> {
    let Shop { pool, prices, .. } = shop;
    let price = run_in_executor(&pool, move || prices.get(item)).await??;
    Ok(format!("item {item}: {price} EUR\n"))
}

async fn offer(State(shop): State<Shop>, Path(item): Path<u32>) -> Result<String, Failure> {
    let Shop { pool, prices, stock, .. } = shop;
    // Both are queued before either is awaited, so they run at the same time.
    let price = run_in_executor(&pool, move || prices.get(item));
    let stock = run_in_executor(&pool, move || stock.get(item));
    let (price, stock) = (price.await??, stock.await??);
    Ok(format!("item {item}: {price} EUR, {stock} in stock\n"))
}

async fn rating(State(shop): State<Shop>, Path(item): Path<u32>) -> Result<String, Failure> {
    let rating = to_thread(move || shop.ratings.get(item)).await??;
    Ok(format!("item {item}: {rating} stars\n"))
}

async fn health(State(shop): State<Shop>) -> String {
    let stats = shop.pool.stats();
    let (busy, limit) = (stats.workers - stats.idle, shop.pool.max_workers());
    let (queued, gap) = (stats.queued, shop.ticker.longest_gap());
    format!("{busy} of {limit} threads busy, {queued} calls queued, longest gap {gap:.1?}\n")
}

/// Why there is no answer.
enum Failure {
    /// The thread gave no result.
    Thread(ResultError),
    /// The microservice did not answer well.
    Service(ureq::Error),
}

impl From<ResultError> for Failure {
    fn from(error: ResultError) -> Self {
        Failure::Thread(error)
    }
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        Failure::Service(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, reason) = match self {
            // The pool is shut down: another instance may be there.
            Failure::Thread(error @ ResultError::Refused(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            Failure::Thread(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            Failure::Service(ureq::Error::StatusCode(404)) => {
                (StatusCode::NOT_FOUND, "no such item".to_owned())
            }
            Failure::Service(error @ ureq::Error::Timeout(_)) => {
                (StatusCode::GATEWAY_TIMEOUT, error.to_string())
            }
            Failure::Service(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
        };
        (status, reason + "\n").into_response()
    }
}
