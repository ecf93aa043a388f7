//! The one task that owns the swarm. Other tasks exist only for blob streams and tell it what they saw.

mod commands;
mod network;
mod requests;
mod roster;
mod strikes;
mod transfers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::{PeerId, Swarm};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::behaviour::{self, Behaviour};
use crate::blob::access::BlobAccess;
use crate::config::{NetConfig, parse_address};
use crate::dialer::Dialer;
use crate::error::NetError;
use crate::event::NetEvent;
use crate::gossip::settings::Topics;
use crate::handle::{Command, NetHandle};
use crate::peers::to_peer;
use requests::Requests;
use roster::Roster;
use strikes::Strikes;
use transfers::Transfers;

const COMMANDS_MAX: usize = 8_192;
const EVENTS_MAX: usize = 1_024;
const LOCAL_MAX: usize = 1_024;
/// Events held back while nobody reads them; from here on the network is not read either.
const BACKLOG_PAUSE: usize = 1_024;
/// Beyond this even events of our own making are dropped, oldest first.
const BACKLOG_MAX: usize = 16_384;
const TICK: Duration = Duration::from_millis(200);

/// What blob tasks tell the network task.
#[derive(Debug)]
pub(crate) enum Local {
    /// A peer did wrong.
    Strike { peer: PeerId, points: u32, fact: String },
    /// The node should hear of something.
    Event(NetEvent),
}

/// Starts the network.
#[derive(Debug)]
pub struct Net;

impl Net {
    /// Starts the network task on the current tokio runtime, already listening.
    ///
    /// Returns the handle for commands and the events, which end when everything has stopped after
    /// [`NetHandle::shutdown`], after the last handle is dropped, or after the receiver is dropped.
    ///
    /// # Errors
    /// [`NetError`] when an address, the key or a setting is unusable, or a port is taken.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time.
    pub fn spawn(
        config: NetConfig,
        blobs: Arc<dyn BlobAccess>,
    ) -> Result<(NetHandle, mpsc::Receiver<NetEvent>), NetError> {
        let topics = Topics::new(config.genesis);
        let mut swarm = behaviour::swarm(&config, &topics)?;
        for text in &config.listen {
            let address = parse_address(text)?;
            swarm
                .listen_on(address)
                .map_err(|error| NetError::Listen { address: text.clone(), fact: error.to_string() })?;
        }
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (events, event_receiver) = mpsc::channel(EVENTS_MAX);
        let (local_sender, local) = mpsc::channel(LOCAL_MAX);
        let (info_sender, info_receiver) = watch::channel(Arc::new(Vec::new()));
        let stop = CancellationToken::new();
        let id = *swarm.local_peer_id();
        let transfers = Transfers::start(&config, &mut swarm, blobs, local_sender, &stop)?;
        let seed = u64::from_be_bytes(id.to_bytes().last_chunk().copied().unwrap_or_default());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let task = Task {
            dialer: Dialer::new(&config.bootstrap, config.limits.redial_min, config.limits.redial_max, seed),
            roster: Roster::new(info_sender),
            strikes: Strikes::new(config.limits.strikes_max, config.limits.ban),
            requests: Requests::default(),
            backlog: VecDeque::new(),
            config,
            topics,
            swarm,
            commands,
            local,
            events,
            transfers,
            stop: stop.clone(),
            tick,
        };
        tokio::spawn(task.run());
        let handle = NetHandle { commands: command_sender, peers: info_receiver, stop, local: to_peer(&id) };
        Ok((handle, event_receiver))
    }
}

struct Task {
    config: NetConfig,
    topics: Topics,
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    local: mpsc::Receiver<Local>,
    events: mpsc::Sender<NetEvent>,
    backlog: VecDeque<NetEvent>,
    roster: Roster,
    strikes: Strikes,
    requests: Requests,
    dialer: Dialer,
    transfers: Transfers,
    stop: CancellationToken,
    tick: Interval,
}

impl Task {
    async fn run(mut self) {
        info!(peer = %self.swarm.local_peer_id(), network = %self.config.genesis.short(), "network started");
        let stop = self.stop.clone();
        loop {
            if !self.flush() {
                break;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // The next turn sends into the room that was found here.
                () = has_room(&self.events), if !self.backlog.is_empty() => {}
                Some(local) = self.local.recv() => self.on_local(local),
                Some(ended) = self.transfers.ended() => self.on_fetch_ended(ended),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                _ = self.tick.tick() => self.on_tick(),
                event = self.swarm.select_next_some(), if self.backlog.len() < BACKLOG_PAUSE => {
                    self.on_swarm(event);
                }
            }
        }
        stop.cancel();
        self.transfers.finish().await;
        info!("network stopped");
    }

    /// Hands events over while there is room; false when nobody will ever read them.
    fn flush(&mut self) -> bool {
        while let Some(event) = self.backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return true;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            }
        }
        !self.events.is_closed()
    }

    /// Queues an event for the node.
    fn emit(&mut self, event: NetEvent) {
        if self.backlog.len() >= BACKLOG_MAX {
            error!(backlog = self.backlog.len(), "network events are not read; the oldest is dropped");
            self.backlog.pop_front();
        }
        self.backlog.push_back(event);
    }

    fn on_local(&mut self, local: Local) {
        match local {
            Local::Strike { peer, points, fact } => self.strike(peer, points, &fact),
            // Progress is for people: it never fills the backlog.
            Local::Event(event) => {
                if self.backlog.len() < BACKLOG_PAUSE {
                    self.emit(event);
                }
            }
        }
    }
}

/// Waits until an event can be sent, or nobody will read any.
async fn has_room(events: &mpsc::Sender<NetEvent>) {
    if events.reserve().await.is_err() {
        debug!("nobody reads the events any more");
    }
}
