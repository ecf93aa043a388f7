//! The HTTP API of a node: JSON on localhost. Anyone who reaches it can read; writing needs the folder's token.
//!
//! Reads go to the store, never through the machine. Bytes that are hashed or signed travel as hex of their canonical
//! form in a field `bytes`. A refusal is `{"error": text}` with a fitting status.

mod chain;
mod error;
mod events;
mod guard;
pub(crate) mod model;
mod status;
mod tasks;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tiltyard_keys::{GenesisHash, PublicKey};
use tiltyard_net::NetHandle;
use tiltyard_proto::genesis::Genesis;
use tiltyard_store::StoreReader;
use tiltyard_store::blob::BlobStore;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Role;
use crate::jobs::JobTable;
use crate::runtime::{Audiences, BrainHandle, Shared};

pub(crate) use error::Refusal;
pub(crate) use tasks::posted_tasks;

/// Largest request body: a transaction in hex, and some.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest body of a batch of transactions.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// Says why the API cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(
        "cannot listen on {address}: {source}; choose another api.listen or stop the program that holds it"
    )]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("{0}")]
    Serve(std::io::Error),
}

/// What the API reads and writes through. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) reader: StoreReader,
    pub(crate) genesis: Arc<Genesis>,
    /// Its hash: made once, a genesis may hold many accounts.
    pub(crate) network: GenesisHash,
    pub(crate) brain: BrainHandle,
    pub(crate) blobs: BlobStore,
    pub(crate) net: NetHandle,
    pub(crate) jobs: JobTable,
    pub(crate) shared: Arc<Shared>,
    pub(crate) audiences: Audiences,
    pub(crate) token: Arc<str>,
    pub(crate) hosts: Arc<[String]>,
    pub(crate) role: Role,
    pub(crate) validator: Option<PublicKey>,
    pub(crate) account: PublicKey,
}

impl App {
    /// Runs a read that may block on a thread made for that.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&App) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let app = self.clone();
        tokio::task::spawn_blocking(move || work(&app))
            .await
            .map_err(|_| Refusal::broken("the read broke off"))?
    }
}

/// Binds the address and serves until `stop`.
pub(crate) async fn serve(
    address: SocketAddr,
    app: App,
    stop: CancellationToken,
) -> Result<JoinHandle<Result<(), ApiError>>, ApiError> {
    let listener = TcpListener::bind(address).await.map_err(|source| ApiError::Listen { address, source })?;
    let bound = listener.local_addr().map_err(ApiError::Serve)?;
    info!(address = %bound, "API listening");
    let router = router(app, stop.clone());
    let ended = async move { stop.cancelled().await };
    Ok(tokio::spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(ended).await.map_err(ApiError::Serve)
    }))
}

fn router(app: App, stop: CancellationToken) -> Router {
    let writes = Router::new()
        .route("/v1/transactions", post(write::transaction))
        .route(
            "/v1/transactions/batch",
            post(write::transactions).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX)),
        )
        .route("/v1/keep-key", post(write::keep_key))
        .route("/v1/blobs", post(write::add_blob))
        .route("/v1/fetch", post(write::fetch))
        .layer(middleware::from_fn_with_state(app.clone(), guard::token));
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/peers", get(status::peers))
        .route("/v1/jobs", get(status::jobs))
        .route("/v1/params", get(status::params))
        .route("/v1/accounts/{key}", get(status::account))
        .route("/v1/validators", get(status::validators))
        .route("/v1/tasks", get(tasks::list))
        .route("/v1/tasks/{id}", get(tasks::one))
        .route("/v1/tasks/{id}/why", get(tasks::why))
        .route("/v1/genesis", get(chain::genesis))
        .route("/v1/blocks/{height}", get(chain::block))
        .route("/v1/headers", get(chain::headers))
        .route("/v1/light/{height}", get(chain::light))
        .route("/v1/state/{key}", get(chain::state))
        .route("/v1/receipts/{task}/{miner}", get(chain::receipt))
        .route("/v1/transactions/{id}", get(chain::transaction))
        .route("/v1/transactions/{id}/receipt", get(chain::transaction_receipt))
        .route("/v1/blobs", get(write::blobs))
        .route("/v1/blobs/{root}", get(write::blob))
        .route("/v1/events", get(move |state, query| events::stream(state, query, stop.clone())))
        .merge(writes)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), guard::origin))
        .with_state(app)
}
