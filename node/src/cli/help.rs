//! Examples that `--help` shows.

pub(super) const ROOT: &str = "Exit codes: 0 done · 1 refused or false · 2 wrong usage · 3 the surroundings fail (files, network, a node that is down)

Examples:
  tiltyard init --role miner --genesis genesis.cbor
  tiltyard run
  tiltyard status
  tiltyard task list --json";

pub(super) const INIT: &str = "Examples:
  tiltyard init --role miner --genesis genesis.cbor
  tiltyard init --dir ./validator-0 --role validator --unencrypted --address /ip4/127.0.0.1/tcp/26900";

pub(super) const GENESIS: &str = "Examples:
  tiltyard genesis new --name home --validator v0/public.json:10000 --validator v1/public.json:10000 \\
      --grant 5f0c…=500 --params params.toml --out genesis.cbor
  tiltyard genesis show genesis.cbor
  tiltyard genesis hash genesis.cbor";

pub(super) const RUN: &str = "Examples:
  tiltyard run
  tiltyard run --dir ./validator-0 --role validator
  tiltyard run --dir ./observer --checkpoint 120000:9f3c…
  TILTYARD_PASSWORD=… tiltyard run --log-json --log info,tiltyard_net=debug";

pub(super) const STATUS: &str = "Examples:
  tiltyard status
  tiltyard status --url http://127.0.0.1:26980 --json";

pub(super) const PEERS: &str = "Examples:
  tiltyard peers
  tiltyard peers --dir ./validator-0 --json";

pub(super) const TASK: &str = "Examples:
  tiltyard task check --base ./base --train train.jsonl --eval eval.jsonl
  tiltyard task post --title faq --kind instruction --base ./base --train train.jsonl --eval eval.jsonl \\
      --pot 100 --bond 5 --min-gain 2 --windows 10m,6h,10m,10m,10m,1h,10m
  tiltyard task watch 1f3a…
  tiltyard task fetch 1f3a… --out ./winner";

pub(super) const WHY: &str = "Examples:
  tiltyard why 1f3a…
  tiltyard why 1f3a… 9c07…";

pub(super) const RECIPE: &str = "Examples:
  tiltyard recipe list --out past.jsonl
  tiltyard recipe show 1f3a…
  tiltyard recipe apply 1f3a… --out winner.toml";

pub(super) const WALLET: &str = "Examples:
  tiltyard wallet show
  tiltyard wallet transfer 9c07… 12.5
  tiltyard wallet export --out account.backup
  tiltyard wallet import account.backup";

pub(super) const VALIDATOR: &str = "Examples:
  tiltyard validator status
  tiltyard validator bond 1000
  tiltyard validator unbond 500
  tiltyard validator unjail
  tiltyard validator set --address /ip4/203.0.113.7/tcp/26900";

pub(super) const VALIDATOR_STATUS: &str = "Examples:
  tiltyard validator status
  tiltyard validator status --key 9c07… --json";

pub(super) const VALIDATOR_SET: &str =
    "The payout account receives judges' pay, subsidy and released stake. Keep its key
on another machine: a thief of the validator key cannot redirect it before the delay is over.

Examples:
  tiltyard validator set --address /ip4/203.0.113.7/tcp/26900
  tiltyard validator set --address /ip4/203.0.113.7/tcp/26900 --payout 9c07…";

pub(super) const VALIDATOR_REVOKE: &str =
    "Run it from the folder that holds the payout account's key, through any node.

Examples:
  tiltyard validator revoke 41d2…
  tiltyard validator revoke 41d2… --unbond --url http://127.0.0.1:26980";

pub(super) const BLOB: &str = "Examples:
  tiltyard blob add --kind base ./base
  tiltyard blob list --json";

pub(super) const TRAIN: &str = "Examples:
  tiltyard train --base ./base --train rows.jsonl --out ./adapter --plot curves.svg
  tiltyard train --base ./base --train rows.parquet --columns prompt=question,completion=answer --out ./adapter
  tiltyard train --base ./base --train rows.jsonl --eval held-out.jsonl --strategy fixed:trl --out ./adapter
  tiltyard train --base ./base --train rows.jsonl --strategy 'external:python3 scripts/external/trl_lora.py' --out ./adapter";

pub(super) const MODEL: &str = "Examples:
  tiltyard model show ./base
  tiltyard model merge ./base ./winner ./merged        # loads in transformers like any model
  tiltyard model merge ./base ./winner ./merged --dtype bf16";

pub(super) const LIGHT: &str = "Examples:
  tiltyard light --url http://127.0.0.1:26980 --genesis-hash 8d1e…
  tiltyard light --url http://a:26980 --witness http://b:26980 --genesis-hash 8d1e… --account 9c07…
  tiltyard light --url http://a:26980 --genesis-hash 8d1e… --receipt winner.receipt --json";

pub(super) const RECEIPT: &str = "Examples:
  tiltyard receipt get 1f3a… 9c07… --out winner.receipt
  tiltyard receipt verify winner.receipt --genesis genesis.cbor --json";

pub(super) const DB: &str = "The node must not run: its folder is refused while it does.

Examples:
  tiltyard db stats
  tiltyard db verify --dir ./validator-0 --json
  tiltyard db repair
  tiltyard db compact";

pub(super) const DB_STATS: &str = "Examples:
  tiltyard db stats
  tiltyard db stats --dir ./validator-0 --json";

pub(super) const DB_VERIFY: &str = "Exit code 1 when something is damaged.

Examples:
  tiltyard db verify
  tiltyard db verify --dir ./validator-0 --json";

pub(super) const DB_REPAIR: &str = "Nothing is thrown away: damaged bytes are kept in folders named aside.

Examples:
  tiltyard db repair
  tiltyard db repair --dir ./validator-0 --json";

pub(super) const DB_COMPACT: &str = "Needs as much free room as the compacted index takes.

Examples:
  tiltyard db compact
  tiltyard db compact --dir ./validator-0 --json";
