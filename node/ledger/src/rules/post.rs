//! `Post`: a task, its rules frozen, its pot in escrow.

use tiltyard_keys::PublicKey;
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::{TaskId, TransactionId};
use tiltyard_proto::limits::{
    ENTRANTS_HARD_MAX, EXAMPLES_MAX, EXAMPLES_MIN, LABEL_BYTES_MAX, LABELS_MAX, TITLE_BYTES_MAX,
};
use tiltyard_proto::state::{Phase, StateKey, TaskRecord, TaskRules};
use tiltyard_proto::task::{Deadlines, TaskKind, TaskSpec};
use tiltyard_proto::units::{MicroCredits, Stake};

use crate::book::Book;
use crate::error::{MarketError, Stop};
use crate::event::LedgerEvent;
use crate::totals::Place;

/// Most tasks live at once: their list is one entry of the state.
const LIVE_TASKS_MAX: usize = 1_024;

/// How many times over the rows must fit into the blocks of the opening window.
const OPENING_ROOM: u64 = 4;

pub(super) fn apply(
    book: &mut Book<'_>,
    sender: PublicKey,
    id: TransactionId,
    spec: &TaskSpec,
) -> Result<(), Stop> {
    check_texts(spec)?;
    check_numbers(spec, &book.params)?;
    check_bond(spec, &book.params)?;
    let validators = book.set()?.members().len();
    check_opening(spec, &book.params, validators)?;
    let mut live: Vec<TaskId> = book.get(StateKey::LiveTasks)?.unwrap_or_default();
    if live.len() >= LIVE_TASKS_MAX {
        return Err(MarketError::TooManyTasks { live: live.len() }.into());
    }
    book.debit(sender, Place::Escrow, spec.pot)?;
    let task = TaskId::from_bytes(*id.as_bytes());
    if let Err(at) = live.binary_search(&task) {
        live.insert(at, task);
    }
    book.put(StateKey::LiveTasks, live)?;
    let deadlines = Deadlines::from_post(book.height, &spec.windows);
    book.enqueue(deadlines.open, task)?;
    let record = TaskRecord {
        spec: spec.clone(),
        requester: sender,
        posted_by: id,
        posted_at: book.height,
        deadlines,
        phase: Phase::Accepting,
        rules: TaskRules::of(&book.params),
        accepted: Vec::new(),
        committee_stake: Stake::ZERO,
        entrants: Vec::new(),
        key: None,
        key_default: None,
        out: Vec::new(),
    };
    book.set_task(task, record)?;
    book.event(LedgerEvent::TaskPhase { task, phase: Phase::Accepting });
    Ok(())
}

fn number(field: &'static str, value: u64, holds: bool, remedy: &'static str) -> Result<(), MarketError> {
    if holds { Ok(()) } else { Err(MarketError::PostNumber { field, value, remedy }) }
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

fn check_texts(spec: &TaskSpec) -> Result<(), MarketError> {
    let title = !spec.title.is_empty()
        && spec.title.len() <= TITLE_BYTES_MAX
        && !spec.title.chars().any(char::is_control);
    number("title bytes", length(&spec.title), title, "use 1 to 128 bytes without control characters")?;
    match &spec.kind {
        TaskKind::Instruction | TaskKind::Chat | TaskKind::ContextQuestion => Ok(()),
        TaskKind::PlainText { window_tokens } => {
            let tokens = u64::from(*window_tokens);
            number("window_tokens", tokens, (2..=65_536).contains(&tokens), "use 2 to 65536")
        }
        TaskKind::Classification { labels } => check_labels(labels),
        TaskKind::Dpo { beta_milli } => {
            let beta = u64::from(*beta_milli);
            number("beta_milli", beta, (1..=10_000).contains(&beta), "use 1 to 10000")
        }
        TaskKind::Grpo { tokens_max } => {
            let tokens = u64::from(*tokens_max);
            number("tokens_max", tokens, (1..=65_536).contains(&tokens), "use 1 to 65536")
        }
        TaskKind::Diffusion { levels } => {
            let levels = u64::from(*levels);
            number("levels", levels, (1..=1_000).contains(&levels), "use 1 to 1000")
        }
    }
}

fn check_labels(labels: &[String]) -> Result<(), MarketError> {
    let count = u64::try_from(labels.len()).unwrap_or(u64::MAX);
    number("labels", count, (2..=LABELS_MAX).contains(&labels.len()), "declare 2 to 64 labels")?;
    for label in labels {
        let fits = (1..=LABEL_BYTES_MAX).contains(&label.len());
        number("label bytes", length(label), fits, "use 1 to 64 bytes a label")?;
    }
    let sorted = labels.is_sorted_by(|before, after| before < after);
    number("labels", count, sorted, "sort them and list each once")
}

fn check_numbers(spec: &TaskSpec, params: &Params) -> Result<(), MarketError> {
    let examples = u64::from(spec.evaluation.examples);
    let most = u64::try_from(EXAMPLES_MAX).unwrap_or(u64::MAX);
    let fewest = if spec.small_set { 1 } else { u64::try_from(EXAMPLES_MIN).unwrap_or(u64::MAX) };
    let remedy = "use 200 to 1024, or at least 1 with small_set";
    number("evaluation examples", examples, (fewest..=most).contains(&examples), remedy)?;
    for blob in [spec.base, spec.training, spec.evaluation.ciphertext] {
        number("blob bytes", blob.bytes, blob.bytes > 0, "name non-empty file sets")?;
    }
    let plain = spec.evaluation.plaintext_bytes;
    number("plaintext_bytes", plain, plain > 0, "state the size of the evaluation set")?;
    for window in spec.windows.each() {
        let fits = window >= params.window_min && window <= params.window_max;
        number("window", window.get(), fits, "use a window between window_min and window_max")?;
    }
    number("pot", spec.pot.get(), spec.pot > MicroCredits::ZERO, "offer a positive pot")?;
    let gain = u64::try_from(spec.min_gain.get()).unwrap_or(u64::MAX);
    number("min_gain", gain, gain <= 1_000_000, "use 0 to 1000000 ppm")?;
    let entrants = u64::from(spec.entrants_max);
    let fits = spec.entrants_max >= 1
        && spec.entrants_max <= params.entrants_max
        && usize::from(spec.entrants_max) <= ENTRANTS_HARD_MAX;
    number("entrants_max", entrants, fits, "use 1 to the network's entrants_max")?;
    let unbonded = spec.unbonded_max <= params.unbonded_max && spec.unbonded_max <= spec.entrants_max;
    let remedy = "use at most entrants_max and the network's unbonded_max";
    number("unbonded_max", u64::from(spec.unbonded_max), unbonded, remedy)?;
    let bytes = spec.checkpoint_bytes_max;
    number("checkpoint_bytes_max", bytes, bytes > 0, "allow a positive size")
}

/// A bond pays at least for the judging of the entrant: a fee for each cell.
fn check_bond(spec: &TaskSpec, params: &Params) -> Result<(), MarketError> {
    let price = params.fee_per_cell.get().saturating_mul(u64::from(spec.evaluation.examples));
    let needed = MicroCredits::new(price.max(1));
    if spec.bond < needed { Err(MarketError::PostBond { bond: spec.bond, needed }) } else { Ok(()) }
}

/// Every committee member must be able to open every row, however full the blocks are.
fn check_opening(spec: &TaskSpec, params: &Params, validators: usize) -> Result<(), MarketError> {
    let rows = u64::from(spec.entrants_max).saturating_add(1);
    let row_bytes = u64::from(spec.evaluation.examples).saturating_mul(4);
    let all = u64::try_from(validators)
        .unwrap_or(u64::MAX)
        .saturating_mul(rows)
        .saturating_mul(row_bytes)
        .saturating_mul(OPENING_ROOM);
    let needed = all.div_ceil(u64::from(params.block_bytes_max).max(1));
    let window = spec.windows.score_open.get();
    if window < needed { Err(MarketError::PostOpenWindow { window, needed }) } else { Ok(()) }
}
