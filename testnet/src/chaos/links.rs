//! The network between the nodes: one loopback port for each ordered pair, and a gate for each direction of bytes.
//!
//! Node `i` knows node `j` only by the port of the link `(i, j)`. A connection through it carries bytes both ways; each
//! direction asks the gate of its own pair before it goes on, so that a split also holds connections that are open.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// What happens to bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// Passes after a while.
    Slow(Duration),
    /// Waits until the gate opens.
    Held,
    /// Connections break, new ones are closed at once.
    Broken,
}

#[derive(Debug)]
struct State {
    gates: Vec<Gate>,
    /// Open connections with the pair they were made for.
    open: Vec<(usize, usize, TcpStream)>,
    ended: bool,
}

#[derive(Debug)]
struct Shared {
    nodes: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, state: &State, from: usize, to: usize) -> Gate {
        state.gates.get(from * self.nodes + to).copied().unwrap_or(Gate::Broken)
    }

    /// Waits until bytes from `from` to `to` may pass; false when the connection must end.
    fn pass(&self, from: usize, to: usize) -> bool {
        let mut state = self.state();
        loop {
            if state.ended {
                return false;
            }
            match self.gate(&state, from, to) {
                Gate::Open => return true,
                Gate::Broken => return false,
                Gate::Slow(delay) => {
                    drop(state);
                    thread::sleep(delay);
                    return true;
                }
                Gate::Held => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// All links of a network. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Links {
    shared: Arc<Shared>,
    ports: Vec<u16>,
}

impl Links {
    /// Opens a link for each ordered pair of nodes, which listen on `targets`.
    pub(super) fn open(targets: &[u16]) -> Result<Self> {
        let nodes = targets.len();
        let state = State { gates: vec![Gate::Open; nodes * nodes], open: Vec::new(), ended: false };
        let shared = Arc::new(Shared { nodes, state: Mutex::new(state), changed: Condvar::new() });
        let mut ports = Vec::new();
        for from in 0..nodes {
            for (to, target) in targets.iter().enumerate() {
                let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on loopback")?;
                ports.push(listener.local_addr()?.port());
                let (shared, target) = (Arc::clone(&shared), *target);
                thread::Builder::new()
                    .name(format!("link-{from}-{to}"))
                    .spawn(move || accept(&listener, &shared, (from, to), target))
                    .context("cannot start a link's thread")?;
            }
        }
        Ok(Self { shared, ports })
    }

    /// The port under which node `from` reaches node `to`.
    pub(super) fn port(&self, from: usize, to: usize) -> u16 {
        self.ports.get(from * self.shared.nodes + to).copied().unwrap_or(0)
    }

    /// Sets the gates of some pairs; open connections of pairs that break are closed.
    pub(super) fn set(&self, pairs: &[(usize, usize)], gate: Gate) {
        let mut state = self.shared.state();
        for (from, to) in pairs {
            if let Some(slot) = state.gates.get_mut(from * self.shared.nodes + to) {
                *slot = gate;
            }
        }
        if gate == Gate::Broken {
            state.open.retain(|(from, to, stream)| {
                let hit = pairs.contains(&(*from, *to)) || pairs.contains(&(*to, *from));
                if hit {
                    // Closed by the other side already is as good.
                    let _ = stream.shutdown(Shutdown::Both);
                }
                !hit
            });
        }
        self.shared.changed.notify_all();
    }

    /// Opens every gate.
    pub(super) fn heal(&self) {
        self.shared.state().gates.fill(Gate::Open);
        self.shared.changed.notify_all();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ended = true;
        for (_, _, stream) in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        for port in &self.ports {
            // Wakes the listener, which then sees that it is over.
            let _ = TcpStream::connect(("127.0.0.1", *port));
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, (from, to): (usize, usize), target: u16) {
    for incoming in listener.incoming() {
        if shared.state().ended {
            return;
        }
        let Ok(near) = incoming else { continue };
        let broken = |gate| gate == Gate::Broken;
        let state = shared.state();
        let refused = broken(shared.gate(&state, from, to)) || broken(shared.gate(&state, to, from));
        drop(state);
        if refused {
            continue;
        }
        // A node that is down refuses: the connection is closed, as it would be without the link.
        let far = SocketAddr::from(([127, 0, 0, 1], target));
        if let Ok(far) = TcpStream::connect_timeout(&far, Duration::from_secs(5)) {
            // A connection that cannot be carried ends here; the nodes dial again.
            let _ = carry(shared, (from, to), near, far);
        }
    }
}

/// Carries bytes of one connection both ways, each on its own thread, until either side ends.
fn carry(
    shared: &Arc<Shared>,
    (from, to): (usize, usize),
    near: TcpStream,
    far: TcpStream,
) -> std::io::Result<()> {
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        shared.state().open.push((from, to, stream.try_clone()?));
    }
    let ways = [(near.try_clone()?, far.try_clone()?, from, to), (far, near, to, from)];
    for (source, sink, from, to) in ways {
        let shared = Arc::clone(shared);
        thread::Builder::new().name(format!("bytes-{from}-{to}")).spawn(move || {
            pump(&shared, source, sink, from, to);
        })?;
    }
    Ok(())
}

fn pump(shared: &Shared, mut source: TcpStream, mut sink: TcpStream, from: usize, to: usize) {
    let mut buffer = [0u8; 16 * 1024];
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        let passed = shared.pass(from, to);
        if !passed || sink.write_all(buffer.get(..read).unwrap_or_default()).is_err() {
            break;
        }
    }
    let own = source.peer_addr().ok();
    for stream in [&source, &sink] {
        let _ = stream.shutdown(Shutdown::Both);
    }
    // Forget the pair of streams, so that their descriptors are closed.
    shared.state().open.retain(|(.., stream)| stream.peer_addr().is_ok() && stream.peer_addr().ok() != own);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes that listen; returns the links and their listeners.
    fn pair() -> (Links, Vec<TcpListener>) {
        let listeners: Vec<TcpListener> =
            (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let ports: Vec<u16> =
            listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect();
        (Links::open(&ports).expect("links"), listeners)
    }

    fn connect(links: &Links, listeners: &[TcpListener]) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(("127.0.0.1", links.port(0, 1))).expect("the link listens");
        let (far, _) = listeners[1].accept().expect("carried");
        (near, far)
    }

    #[test]
    fn bytes_pass_both_ways_and_wait_at_a_held_gate() {
        let (links, listeners) = pair();
        let (mut near, mut far) = connect(&links, &listeners);
        links.set(&[(0, 1)], Gate::Held);
        near.write_all(b"late").expect("taken");
        far.write_all(b"back").expect("taken");
        let mut four = [0; 4];
        near.read_exact(&mut four).expect("the other way is open");
        assert_eq!(&four, b"back");
        far.set_nonblocking(true).expect("set");
        assert!(far.read(&mut four).is_err(), "held");
        far.set_nonblocking(false).expect("set");
        links.heal();
        far.read_exact(&mut four).expect("delivered after all");
        assert_eq!(&four, b"late");
    }

    #[test]
    fn a_broken_gate_ends_connections_and_refuses_new_ones() {
        let (links, listeners) = pair();
        let (mut near, mut far) = connect(&links, &listeners);
        links.set(&[(1, 0)], Gate::Broken);
        let mut one = [0; 1];
        assert_eq!(far.read(&mut one).unwrap_or(0), 0);
        assert_eq!(near.read(&mut one).unwrap_or(0), 0);
        let mut again = TcpStream::connect(("127.0.0.1", links.port(0, 1))).expect("the link listens");
        assert_eq!(again.read(&mut one).unwrap_or(0), 0, "closed at once");
        links.heal();
        let (mut near, mut far) = connect(&links, &listeners);
        near.write_all(b"x").expect("taken");
        far.read_exact(&mut one).expect("carried");
    }
}
