//! Fetches one blob: asks connected peers, takes pieces from all that have it, retries until done or cancelled.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use tiltyard_proto::hash::plain;
use tiltyard_proto::manifest::{BlobRef, Manifest};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use super::access::BlobAccess;
use super::lane::{Floor, Job, LaneError, ask_manifest, fetch_batch, open};
use super::plan::{Batch, Claims, Plan};
use crate::error::BlobError;
use crate::event::NetEvent;
use crate::task::Local;

const LANES_PER_PROVIDER: u32 = 2;
const ASKS_MAX: usize = 8;
const RETRY_MIN: Duration = Duration::from_millis(250);
const BUSY_PAUSE: Duration = Duration::from_millis(300);
const CORRUPT_STRIKES: u32 = 8;
const SLOW_STRIKES: u32 = 2;
const GARBLED_STRIKES: u32 = 4;

/// What every fetch of a node shares.
#[derive(Clone)]
pub(crate) struct Fetcher {
    pub(crate) access: Arc<dyn BlobAccess>,
    pub(crate) control: Control,
    pub(crate) protocol: StreamProtocol,
    pub(crate) connected: watch::Receiver<Arc<Vec<PeerId>>>,
    pub(crate) local: mpsc::Sender<Local>,
    pub(crate) transfers: Arc<Semaphore>,
    pub(crate) floor: Floor,
    pub(crate) retry_max: Duration,
    pub(crate) bytes_max: u64,
}

/// Says why a fetch ended for good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the blob holds {held} bytes, its reference allows {said}; the reference is wrong")]
    Size { held: u64, said: u64 },
    #[error("the manifest has root {root}, not the one asked for; the manifest is wrong")]
    Root { root: String },
    #[error("the blob holds {bytes} bytes, at most {max} are fetched; raise the limit or leave the task")]
    TooLarge { bytes: u64, max: u64 },
    #[error("the manifest is refused: {0}")]
    Manifest(#[from] tiltyard_proto::manifest::ManifestError),
    #[error(transparent)]
    Storage(#[from] BlobError),
    #[error("the storage call ended abnormally: {0}")]
    Aborted(String),
}

enum Standing {
    Idle,
    Asking,
    Providing { lanes: u32 },
    Struck,
}

struct Candidate {
    standing: Standing,
    next_ask: Instant,
    failures: u32,
}

type Pending<T> = FuturesUnordered<Pin<Box<dyn Future<Output = T> + Send>>>;

struct Asked {
    peer: PeerId,
    answer: Result<(Vec<u8>, Stream), LaneError>,
}

struct Moved {
    peer: PeerId,
    batch: Option<Batch>,
    result: Result<Stream, LaneError>,
}

struct Transfer {
    job: Job,
    plan: Plan,
    kept: Arc<AtomicU64>,
}

/// One fetch.
pub(crate) struct Fetch {
    shared: Fetcher,
    blob: BlobRef,
    transfer: Option<Transfer>,
    candidates: BTreeMap<PeerId, Candidate>,
    asks: Pending<Asked>,
    moves: Pending<Moved>,
    idle: VecDeque<(PeerId, Stream)>,
}

impl Fetch {
    pub(crate) fn new(shared: Fetcher, blob: BlobRef) -> Self {
        Self {
            shared,
            blob,
            transfer: None,
            candidates: BTreeMap::new(),
            asks: FuturesUnordered::new(),
            moves: FuturesUnordered::new(),
            idle: VecDeque::new(),
        }
    }

    /// Runs until the blob is complete, or cannot be for a reason that no peer can mend.
    pub(crate) async fn run(mut self, manifest: Option<Manifest>) -> Result<(), FetchError> {
        if self.blob.bytes > self.shared.bytes_max {
            return Err(FetchError::TooLarge { bytes: self.blob.bytes, max: self.shared.bytes_max });
        }
        let (access, root) = (Arc::clone(&self.shared.access), self.blob.root);
        if blocking(move || access.manifest(&root)).await??.is_some() {
            return Ok(());
        }
        if let Some(manifest) = manifest {
            self.begin(manifest).await?;
        }
        loop {
            self.follow_peers();
            self.ask_due();
            self.feed();
            if self.is_complete() {
                break;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                Some(moved) = self.moves.next(), if !self.moves.is_empty() => self.on_moved(moved)?,
                Some(asked) = self.asks.next(), if !self.asks.is_empty() => self.on_asked(asked).await?,
                changed = self.shared.connected.changed() => if changed.is_err() {
                    return Err(FetchError::Aborted("the network task has ended".to_owned()));
                },
                () = sleep_until(wake) => {}
            }
        }
        let transfer = self.transfer.take().expect("is_complete() was true, so there is a transfer");
        blocking(move || transfer.job.partial.finish()).await??;
        Ok(())
    }

    /// Checks the manifest against the reference and opens the storage for it.
    async fn begin(&mut self, manifest: Manifest) -> Result<(), FetchError> {
        manifest.check()?;
        if manifest.root() != self.blob.root {
            return Err(FetchError::Root { root: manifest.root().to_string() });
        }
        let held = manifest.total_bytes()?;
        if held > self.blob.bytes {
            return Err(FetchError::Size { held, said: self.blob.bytes });
        }
        // From here on the manifest says how much there is to fetch.
        self.blob.bytes = held;
        let manifest = Arc::new(manifest);
        let (access, wanted) = (Arc::clone(&self.shared.access), Arc::clone(&manifest));
        let partial = blocking(move || access.begin(&wanted)).await??;
        let plan = Plan::new(Arc::clone(&manifest), Arc::clone(&partial));
        let kept = plan.bytes_kept();
        info!(root = %self.blob.root, bytes = held, kept, "fetching a blob");
        let job = Job { root: self.blob.root, manifest, partial, claims: Arc::new(Claims::default()) };
        self.transfer = Some(Transfer { job, plan, kept: Arc::new(AtomicU64::new(kept)) });
        Ok(())
    }

    /// Kept bytes alone say that all is here: a slow lane may still be busy with what another one brought.
    fn is_complete(&self) -> bool {
        self.transfer
            .as_ref()
            .is_some_and(|transfer| transfer.kept.load(Ordering::Relaxed) >= self.blob.bytes)
    }

    /// Forgets peers that left, welcomes new ones.
    fn follow_peers(&mut self) {
        let connected = self.shared.connected.borrow_and_update().clone();
        self.candidates.retain(|peer, candidate| {
            connected.contains(peer)
                || matches!(candidate.standing, Standing::Asking | Standing::Providing { .. })
        });
        self.idle.retain(|(peer, _)| connected.contains(peer));
        for peer in connected.iter() {
            self.candidates.entry(*peer).or_insert_with(|| Candidate {
                standing: Standing::Idle,
                next_ask: Instant::now(),
                failures: 0,
            });
        }
    }

    fn ask_due(&mut self) {
        let now = Instant::now();
        for (peer, candidate) in &mut self.candidates {
            if self.asks.len() >= ASKS_MAX {
                return;
            }
            if matches!(candidate.standing, Standing::Idle) && candidate.next_ask <= now {
                candidate.standing = Standing::Asking;
                let (control, protocol) = (self.shared.control.clone(), self.shared.protocol.clone());
                let (peer, root) = (*peer, self.blob.root);
                self.asks.push(Box::pin(async move {
                    let answer = async {
                        let mut stream = open(control, peer, protocol).await?;
                        let bytes = ask_manifest(&mut stream, root).await?;
                        Ok((bytes, stream))
                    };
                    Asked { peer, answer: answer.await }
                }));
            }
        }
    }

    /// Returns when there is something to do that no event announces.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let late =
            self.transfer.as_ref().filter(|_| !self.idle.is_empty()).and_then(|it| it.plan.next_late(now));
        let ask = self.next_ask(now + self.shared.retry_max);
        late.map_or(ask, |late| late.min(ask))
    }

    fn next_ask(&self, far: Instant) -> Instant {
        if self.asks.len() >= ASKS_MAX {
            return far;
        }
        self.candidates
            .values()
            .filter(|candidate| matches!(candidate.standing, Standing::Idle))
            .map(|candidate| candidate.next_ask)
            .min()
            .map_or(far, |next| next.min(far))
    }

    /// Gives work to every idle stream.
    fn feed(&mut self) {
        let Some(transfer) = &mut self.transfer else { return };
        let now = Instant::now();
        for _ in 0..self.idle.len() {
            let Some((peer, stream)) = self.idle.pop_front() else { return };
            let Some(batch) = transfer.plan.take(peer, now) else {
                self.idle.push_back((peer, stream));
                continue;
            };
            self.moves.push(Box::pin(carry(
                self.shared.clone(),
                transfer.job.clone(),
                Arc::clone(&transfer.kept),
                self.blob.bytes,
                (peer, stream),
                batch,
            )));
        }
    }

    async fn on_asked(&mut self, asked: Asked) -> Result<(), FetchError> {
        let Asked { peer, answer } = asked;
        let (bytes, stream) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.after_failure(peer, &error);
                return Ok(());
            }
        };
        if plain(&bytes) != *self.blob.root.as_bytes() {
            self.after_failure(peer, &LaneError::Corrupt);
            return Ok(());
        }
        if self.transfer.is_none() {
            // The bytes have the root's hash: what is wrong with them is wrong for every provider.
            let manifest = Manifest::decode(&bytes)?;
            self.begin(manifest).await?;
        }
        debug!(root = %self.blob.root, %peer, "a peer has the blob");
        let Some(candidate) = self.candidates.get_mut(&peer) else { return Ok(()) };
        candidate.standing = Standing::Providing { lanes: LANES_PER_PROVIDER };
        candidate.failures = 0;
        self.idle.push_back((peer, stream));
        for _ in 1..LANES_PER_PROVIDER {
            let (control, protocol) = (self.shared.control.clone(), self.shared.protocol.clone());
            self.moves.push(Box::pin(async move {
                Moved { peer, batch: None, result: open(control, peer, protocol).await }
            }));
        }
        Ok(())
    }

    fn on_moved(&mut self, moved: Moved) -> Result<(), FetchError> {
        let Moved { peer, batch, result } = moved;
        if let (Some(batch), Some(transfer)) = (batch, &mut self.transfer) {
            transfer.plan.land(peer, batch, result.is_ok());
        }
        match result {
            Ok(stream) => {
                let struck = matches!(
                    self.candidates.get(&peer),
                    None | Some(Candidate { standing: Standing::Struck, .. })
                );
                if !struck {
                    self.idle.push_back((peer, stream));
                }
                Ok(())
            }
            Err(LaneError::Local(error)) => Err(error.into()),
            Err(error) => {
                self.after_failure(peer, &error);
                Ok(())
            }
        }
    }

    /// Takes a failed stream off its peer; asks the peer again later, or never.
    fn after_failure(&mut self, peer: PeerId, error: &LaneError) {
        debug!(root = %self.blob.root, %peer, %error, "a peer did not give the blob");
        let strikes = match error {
            LaneError::Corrupt => CORRUPT_STRIKES,
            LaneError::Slow => SLOW_STRIKES,
            LaneError::Stream(error) if error.kind() == io::ErrorKind::InvalidData => GARBLED_STRIKES,
            LaneError::Stream(_)
            | LaneError::Absent
            | LaneError::Refused
            | LaneError::Busy
            | LaneError::Local(_) => 0,
        };
        if strikes > 0 {
            let fact = format!("blob {}: {error}", self.blob.root.short());
            // A full queue means a flood of other strikes; this one may be lost.
            let _ = self.shared.local.try_send(Local::Strike { peer, points: strikes, fact });
        }
        let Some(candidate) = self.candidates.get_mut(&peer) else { return };
        if matches!(error, LaneError::Corrupt) {
            candidate.standing = Standing::Struck;
            self.idle.retain(|(idle, _)| *idle != peer);
            return;
        }
        candidate.standing = match candidate.standing {
            Standing::Struck => Standing::Struck,
            Standing::Providing { lanes } if lanes > 1 => {
                Standing::Providing { lanes: lanes.saturating_sub(1) }
            }
            Standing::Providing { .. } | Standing::Asking | Standing::Idle => Standing::Idle,
        };
        candidate.failures = candidate.failures.saturating_add(1);
        let pause = RETRY_MIN.saturating_mul(1 << candidate.failures.min(10).saturating_sub(1));
        candidate.next_ask = Instant::now() + pause.min(self.shared.retry_max);
    }
}

/// Moves one batch over one stream.
async fn carry(
    shared: Fetcher,
    job: Job,
    kept: Arc<AtomicU64>,
    total: u64,
    (peer, mut stream): (PeerId, Stream),
    batch: Batch,
) -> Moved {
    let Ok(permit) = shared.transfers.acquire().await else {
        return Moved { peer, batch: Some(batch), result: Err(LaneError::Busy) };
    };
    let root = job.root;
    let local = shared.local.clone();
    let result = fetch_batch(&mut stream, &job, &batch, shared.floor, |bytes| {
        let now = kept.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        // Progress is for people: with a full queue the next piece tells more.
        let _ = local.try_send(Local::Event(NetEvent::BlobProgress { root, bytes: now, total }));
    })
    .await;
    drop(permit);
    match result {
        Ok(()) => Moved { peer, batch: Some(batch), result: Ok(stream) },
        Err(LaneError::Busy) => {
            sleep(BUSY_PAUSE).await;
            Moved { peer, batch: Some(batch), result: Err(LaneError::Busy) }
        }
        Err(error) => Moved { peer, batch: Some(batch), result: Err(error) },
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| FetchError::Aborted(error.to_string()))
}
