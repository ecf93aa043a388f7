//! A network of real processes in a temporary folder; everything started is killed when it is dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nodes share two cores with whatever else the machine does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn tiltyard(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tiltyard"))
        .args(arguments)
        .env_remove("TILTYARD_PASSWORD")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// Runs a command that must succeed and returns its JSON.
pub(crate) fn json(arguments: &[&str]) -> Value {
    let output = tiltyard(&[arguments, &["--json"]].concat());
    assert!(
        output.status.success(),
        "tiltyard {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// One node of the world.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) dir: PathBuf,
    pub(crate) url: String,
    pub(crate) public: Value,
    process: Option<Child>,
}

impl Member {
    pub(crate) fn dir(&self) -> &str {
        self.dir.to_str().expect("temporary folders have plain names")
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    pub(crate) fn start_with(&mut self, more: &[&str]) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_tiltyard"))
            .args(["run", "--dir", self.dir()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        self.process = Some(child);
    }

    /// Kills the process the hard way.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it can be reaped");
        }
    }

    /// Asks the process to end and returns its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let child = self.process.take()?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).ok()?)?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
        child.wait_with_output().expect("it ends").status.code()
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let url = format!("{}{path}", self.url);
        ureq::get(&url).call().ok()?.body_mut().read_json().ok()
    }

    pub(crate) fn height(&self) -> u64 {
        self.get("/v1/status").and_then(|status| status["height"].as_u64()).unwrap_or(0)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A network that is laid out and not yet started.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) members: Vec<Member>,
    pub(crate) genesis: PathBuf,
    _folder: TempDir,
}

/// Makes folders, keys and genesis with the tool itself, on ports that are free now.
pub(crate) fn world(validators: usize, observers: usize) -> World {
    let params = "block_interval_ms = 300\npropose_timeout_ms = 600\nprevote_timeout_ms = 300\nprecommit_timeout_ms = 300\n";
    world_of(validators, observers, params)
}

/// The same with other parameters, as lines of TOML.
pub(crate) fn world_of(validators: usize, observers: usize, params: &str) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let ports = free_ports((validators + observers) * 2);
    let mut members = Vec::new();
    for (at, ports) in ports.chunks(2).enumerate() {
        let role = if at < validators { "validator" } else { "observer" };
        let dir = folder.path().join(format!("{role}-{at}"));
        let address = format!("/ip4/127.0.0.1/tcp/{}", ports[0]);
        let text = dir.to_str().expect("plain names");
        json(&["init", "--dir", text, "--role", role, "--unencrypted", "--address", &address]);
        let public = std::fs::read(dir.join("public.json")).expect("a public record");
        members.push(Member {
            url: format!("http://127.0.0.1:{}", ports[1]),
            public: serde_json::from_slice(&public).expect("JSON"),
            dir,
            process: None,
        });
    }
    let genesis = make_genesis(folder.path(), &members, validators, params);
    let bootstrap: Vec<String> = ports
        .chunks(2)
        .take(validators)
        .map(|ports| format!("\"/ip4/127.0.0.1/tcp/{}\"", ports[0]))
        .collect();
    for (member, ports) in members.iter().zip(ports.chunks(2)) {
        std::fs::copy(&genesis, member.dir.join("genesis.cbor")).expect("copied");
        let path = member.dir.join("config.toml");
        let text = std::fs::read_to_string(&path)
            .expect("a configuration")
            .replace("/ip4/0.0.0.0/tcp/26900", &format!("/ip4/127.0.0.1/tcp/{}", ports[0]))
            .replace("127.0.0.1:26980", &format!("127.0.0.1:{}", ports[1]))
            .replace("bootstrap = []", &format!("bootstrap = [{}]", bootstrap.join(", ")));
        std::fs::write(&path, text).expect("written");
    }
    World { members, genesis, _folder: folder }
}

fn make_genesis(folder: &Path, members: &[Member], validators: usize, text: &str) -> PathBuf {
    let params = folder.join("params.toml");
    std::fs::write(&params, text).expect("written");
    let genesis = folder.join("genesis.cbor");
    let mut arguments: Vec<String> =
        ["genesis", "new", "--name", "it", "--params"].map(str::to_owned).to_vec();
    arguments.push(params.display().to_string());
    arguments.extend(["--out".to_owned(), genesis.display().to_string()]);
    for member in &members[..validators] {
        arguments.extend(["--validator".to_owned(), format!("{}/public.json:1000", member.dir())]);
    }
    for member in &members[validators..] {
        let account = member.public["account"].as_str().expect("an account");
        arguments.extend(["--grant".to_owned(), format!("{account}=1000")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    json(&arguments);
    genesis
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}

/// Waits until `holds`; fails with `what` and every node's last words when it takes too long.
pub(crate) fn until(world: &World, what: &str, mut holds: impl FnMut(&World) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds(world) {
        if Instant::now() > end {
            for member in &world.members {
                let log = member.log();
                let tail: Vec<&str> = log.lines().rev().take(8).collect();
                eprintln!("{} at height {}:\n{}", member.dir(), member.height(), tail.join("\n"));
            }
            panic!("waited in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
