//! The commented `config.toml` that `tiltyard init` writes: every key with its default.

use super::Role;

/// Returns the file for a new node.
pub(crate) fn template(role: Role) -> String {
    format!(
        "# What this node does: \"miner\", \"validator\" or \"observer\" (a requester's node is an observer).\nrole = \"{}\"\n{REST}",
        role.word()
    )
}

const REST: &str = r#"# How a new node catches up: "blocks" executes every block from the first one and checks everything itself; "snapshot"
# fetches a recent state, proven by the validators' certificates from the genesis document on, and the blocks after it.
sync = "blocks"

[network]
# Addresses to listen on.
listen = ["/ip4/0.0.0.0/tcp/26900"]
# Peers to stay connected to, such as "/ip4/203.0.113.7/tcp/26900" with or without "/p2p/<peer id>".
bootstrap = []
# Whether to stay connected to the validators that the ledger names (at most 32).
dial_validators = true
# Most connections that others open, and most that this node opens.
inbound_max = 96
outbound_max = 40

[api]
# Where the HTTP API listens. Anyone who reaches it can read; writing needs the token in api.token.
listen = "127.0.0.1:26980"
# Further host names under which it may be reached; loopback names always may.
hosts = []

[storage]
# Most megabytes of models and data sets.
blobs_mb_max = 20000
# A snapshot of the state is made after every so many blocks, for new nodes to join by; 0 for never. Nodes with the same
# number share the work of serving one joiner.
snapshot_every = 1000
# Blocks older than so many are dropped once two snapshots of the state cover them; at least 2000, 0 keeps every block.
keep_blocks = 100000

[mempool]
# Most kilobytes of pending transactions, and most transactions of one sender.
kb_max = 8192
per_sender_max = 256

[jobs]
# Trainings, and evaluations or checks, at a time. Each is one single-threaded process at the lowest priority.
train_max = 1
evaluate_max = 1
# Most memory of one job.
memory_mb_max = 8192
# Most CPU time of one evaluation or check, and of one training.
evaluate_cpu_s_max = 3600
train_cpu_s_max = 864000

[validator]
# Heights that a starting validator listens to before it signs, when its vote journal does not tell what its key signed
# before: after a lost disk, a restored backup, or while the key may still run on another machine.
twin_wait_blocks = 2

[judge]
# Whether a validator judges tasks (and earns the judges' share), and the largest blob it fetches for that.
enabled = true
blob_mb_max = 4096

[miner]
# How to choose hyperparameters: "search", "fixed:<preset>", as in "fixed:autotrain", or "fixed:<file>" with a recipe;
# "learned:<file>", a search that starts from the past recipes that `tiltyard recipe list --out <file>` writes;
# or "external:<command>", a trainer of your own (node/docs/job-folder.md).
strategy = "search"
# Tokens to train on for one task, search included.
tokens = 200000
# Steps between two checkpoints; a killed training continues from the newest.
checkpoint_steps = 20
# Largest bond locked for one task, and smallest pot worth training for, in micro-credits.
bond_max = 100000000
pot_min = 0
# Largest base model or training set that is fetched.
blob_mb_max = 4096
# Asks a training to finish this many blocks before commits close.
finish_before = 10
# Most tasks at a time.
tasks_max = 4
"#;
