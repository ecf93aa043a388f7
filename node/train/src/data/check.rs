//! The report on a task's rows before a credit is locked: what is wrong, what overlaps, what it costs.

mod leak;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{DataError, lines};
use crate::eval;
use crate::fit::settings::SHARD_TOKENS;
use crate::kind::{Rows, Work};
use crate::model::estimate::{
    Trained, evaluation_bytes, forward_operations, training_bytes, training_factor_tenths,
};
use crate::model::{Model, ModelError};

/// Most faulty lines named in a report; the count is always whole.
const FAULTS_SHOWN_MAX: usize = 20;
/// Upper bounds of the length histogram's classes, in tokens; the last class is open.
pub const LENGTH_CLASSES: [u32; 9] = [8, 16, 32, 64, 128, 256, 512, 1_024, 4_096];
/// Rows computed to measure this machine's speed.
const PROBE_ROWS: usize = 8;
/// More than this share of one answer makes a set degenerate, in millionths.
const COMMON_PPM: u64 = 900_000;
/// A base that loses less than this has next to nothing to learn, in micro-nats.
const LOSS_MICRO_MIN: u64 = 50_000;
/// More repeats than this share are told, in millionths.
const REPEATS_PPM: u64 = 100_000;

/// One line that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultyLine {
    /// Line in the file, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub fault: String,
}

/// What was found in one file of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// Rows, good and bad.
    pub rows: u64,
    /// Rows that cannot be used.
    pub faulty: u64,
    /// The first of them.
    pub faults: Vec<FaultyLine>,
    /// Tokens computed for all good rows, end tokens included; more than the texts have where a
    /// row is computed several times, as once a label.
    pub tokens: u64,
    /// Tokens of the longest sequence computed.
    pub longest: u64,
    /// Sequences per class of [`LENGTH_CLASSES`], and longer.
    pub lengths: Vec<u64>,
    /// Lines that repeat an earlier row.
    pub duplicates: Vec<u64>,
    /// Tokens of all good rows that carry loss.
    pub target_tokens: u64,
    /// Different answers among the good rows, but for case and white space.
    pub answers: u64,
    /// Good rows with the answer that is given most often.
    pub commonest: u64,
}

/// Something that can be posted but should be known before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Warning {
    /// Every training row has the same answer.
    OneTrainingAnswer,
    /// Most evaluation rows have one answer: who always says it wins.
    OneEvaluationAnswer {
        /// Their share, in millionths.
        ppm: u64,
    },
    /// The base knows the answers already; there is next to nothing to gain.
    NothingToGain {
        /// Its mean loss on a few training rows, in micro-nats.
        loss_micro: u64,
    },
    /// Many training rows are repeats.
    Repeats {
        /// Their share, in millionths.
        ppm: u64,
    },
    /// Evaluation rows share 13 words in a row with a training row.
    Leaks {
        /// How many.
        rows: u64,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |ppm: u64| ppm as f64 / 1e4;
        match *self {
            Self::OneTrainingAnswer => write!(f, "every training row has the same answer"),
            Self::OneEvaluationAnswer { ppm } => write!(
                f,
                "{:.0} % of the evaluation rows have one answer: always saying it wins",
                percent(ppm)
            ),
            Self::NothingToGain { loss_micro } => write!(
                f,
                "the base loses only {:.4} nats on these rows: there is next to nothing to gain",
                loss_micro as f64 / 1e6
            ),
            Self::Repeats { ppm } => write!(f, "{:.0} % of the training rows repeat others", percent(ppm)),
            Self::Leaks { rows } => {
                write!(f, "{rows} evaluation rows share 13 words in a row with a training row")
            }
        }
    }
}

/// What is known of the evaluation set.
#[derive(Debug, Clone, Copy)]
pub enum EvaluationSide<'a> {
    /// Its rows.
    Rows(&'a [u8]),
    /// Only what the task promises.
    Promised {
        /// Number of examples.
        examples: u32,
        /// Bytes in the clear.
        bytes: u64,
    },
}

/// The report on a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Parameters of the base.
    pub base_parameters: u64,
    /// The longest row the base takes, in tokens.
    pub context: u64,
    /// The training set.
    pub training: FileReport,
    /// The evaluation set, when its rows are at hand.
    pub evaluation: Option<FileReport>,
    /// Lines of the evaluation set whose prompt or whole row is in the training set.
    pub overlap: Vec<u64>,
    /// Lines of the evaluation set that share 13 words in a row with a training row.
    pub leaks: Vec<u64>,
    /// What should be known before it is posted.
    pub warnings: Vec<Warning>,
    /// Mean loss of the base on a few training rows, in micro-nats.
    pub base_loss_micro: u64,
    /// Tokens of one evaluation, estimated when only the size is known.
    pub evaluation_tokens: u64,
    /// Processor time of one evaluation here, in milliseconds.
    pub evaluation_cpu_ms: u64,
    /// Processor time of once through the training rows here, in milliseconds.
    pub epoch_cpu_ms: u64,
    /// Memory of one evaluation with one worker, estimated from the shape, in bytes.
    pub evaluation_memory_bytes: u64,
    /// Memory of an adapter run of rank 16 with one worker, estimated from the shape, in bytes.
    pub memory_bytes: u64,
}

impl Report {
    /// Says whether every row can be used and nothing of the evaluation set leaks.
    pub fn is_clean(&self) -> bool {
        let good = |file: &FileReport| file.faulty == 0 && file.rows > 0;
        good(&self.training) && self.evaluation.as_ref().is_none_or(good) && self.overlap.is_empty()
    }
}

struct Scan {
    report: FileReport,
    rows: Box<dyn Rows>,
    /// Hash of what is given, if anything, and of the whole row, per good row, with its line.
    keys: Vec<(u64, Option<blake3::Hash>, blake3::Hash)>,
    /// Prompt and answer of each good row, with its line.
    texts: Vec<(u64, String)>,
}

fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

fn scan(empty: &dyn Rows, bytes: &[u8]) -> Result<Scan, DataError> {
    let mut report = FileReport { lengths: vec![0; LENGTH_CLASSES.len() + 1], ..FileReport::default() };
    let (mut rows, mut keys, mut known) = (empty.pick(&[]), Vec::new(), BTreeSet::new());
    let (mut texts, mut answers) = (Vec::new(), BTreeMap::<[u8; 32], u64>::new());
    for (line, text) in lines(bytes)? {
        let line = line as u64;
        report.rows += 1;
        let seen = match rows.add(text) {
            Ok(found) => found,
            Err(fault) => {
                report.faulty += 1;
                if report.faults.len() < FAULTS_SHOWN_MAX {
                    report.faults.push(FaultyLine { line, fault: fault.to_string() });
                }
                continue;
            }
        };
        *answers.entry(*blake3::hash(normal(&seen.answer).as_bytes()).as_bytes()).or_default() += 1;
        let asked = seen.asked.as_deref().map(normal);
        let whole = format!("{}\n{}", asked.as_deref().unwrap_or_default(), normal(&seen.said));
        let hash = blake3::hash(whole.as_bytes());
        texts.push((line, whole));
        if !known.insert(*hash.as_bytes()) {
            report.duplicates.push(line);
        }
        keys.push((line, asked.map(|asked| blake3::hash(asked.as_bytes())), hash));
    }
    for Work { tokens, targets } in rows.work() {
        report.tokens += tokens;
        report.longest = report.longest.max(tokens);
        let class = LENGTH_CLASSES.iter().position(|&most| tokens <= u64::from(most));
        report.lengths[class.unwrap_or(LENGTH_CLASSES.len())] += 1;
        report.target_tokens += targets;
    }
    report.answers = answers.len() as u64;
    report.commonest = answers.into_values().max().unwrap_or(0);
    Ok(Scan { report, rows, keys, texts })
}

/// Operations of a forward pass over rows.
fn operations(base: &Model, rows: &dyn Rows) -> u64 {
    let row = |row: Work| forward_operations(base.config(), row.tokens, row.targets);
    rows.work().into_iter().map(row).fold(0, u64::saturating_add)
}

/// Operations a millisecond of this machine, measured on a few rows, and their mean score in millionths.
fn probe(base: &Model, rows: &dyn Rows) -> Result<(u64, u64), ModelError> {
    let rows = rows.pick(&(0..rows.count().min(PROBE_ROWS)).collect::<Vec<_>>());
    let started = Instant::now();
    let loss = rows.score(base, base, 1)?.mean();
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    let done = operations(base, rows.as_ref()).saturating_mul(rows.passes());
    let speed = (done.saturating_mul(1_000) / micros).max(1);
    Ok((speed, u64::from(eval::micro_nats(loss).get())))
}

fn share(part: u64, all: u64) -> u64 {
    part.saturating_mul(1_000_000) / all.max(1)
}

fn warnings(train: &FileReport, test: Option<&FileReport>, leaks: usize, loss_micro: u64) -> Vec<Warning> {
    let mut found = Vec::new();
    let good = train.rows - train.faulty;
    if train.answers == 1 && good > 1 {
        found.push(Warning::OneTrainingAnswer);
    }
    if let Some(test) = test {
        let ppm = share(test.commonest, test.rows - test.faulty);
        if ppm > COMMON_PPM && test.rows - test.faulty > 1 {
            found.push(Warning::OneEvaluationAnswer { ppm });
        }
    }
    if loss_micro < LOSS_MICRO_MIN {
        found.push(Warning::NothingToGain { loss_micro });
    }
    let ppm = share(train.duplicates.len() as u64, good);
    if ppm > REPEATS_PPM {
        found.push(Warning::Repeats { ppm });
    }
    if leaks > 0 {
        found.push(Warning::Leaks { rows: leaks as u64 });
    }
    found
}

/// Reads and measures a task's rows against a base.
///
/// Faulty rows are reported, not refused. The speed is measured on a few rows, so the
/// two times vary between calls.
///
/// # Errors
/// [`DataError`] when a file has no usable row at all or too many rows.
pub fn report(
    base: &Model,
    empty: &dyn Rows,
    training: &[u8],
    evaluation: EvaluationSide<'_>,
) -> Result<Report, DataError> {
    let fit = base.context();
    let train = scan(empty, training)?;
    if train.rows.count() == 0 {
        return Err(match train.report.faults.first() {
            None => DataError::NoRows,
            Some(first) => DataError::AllFaulty { line: first.line, fault: first.fault.clone() },
        });
    }
    let test = match evaluation {
        EvaluationSide::Rows(bytes) => Some(scan(empty, bytes)?),
        EvaluationSide::Promised { .. } => None,
    };
    let evaluation_tokens = match (&test, evaluation) {
        (Some(test), _) => test.report.tokens,
        (None, EvaluationSide::Promised { bytes, .. }) => {
            // As many tokens a byte as the training rows have.
            let wide = u128::from(bytes) * u128::from(train.report.tokens);
            u64::try_from(wide / training.len().max(1) as u128).unwrap_or(u64::MAX)
        }
        (None, EvaluationSide::Rows(_)) => 0,
    };
    let overlap = test.as_ref().map(|test| overlap(&train, test)).unwrap_or_default();
    let leaks = test.as_ref().map(|test| leak::lines(&train.texts, &test.texts)).unwrap_or_default();
    let (speed, base_loss_micro) =
        probe(base, train.rows.as_ref()).map_err(|error| DataError::Model(Box::new(error)))?;
    let warnings =
        warnings(&train.report, test.as_ref().map(|test| &test.report), leaks.len(), base_loss_micro);
    let epoch = operations(base, train.rows.as_ref());
    let evaluation = match &test {
        Some(test) => operations(base, test.rows.as_ref()),
        // As much work a token as the training rows are.
        None => {
            let wide = u128::from(epoch) * u128::from(evaluation_tokens);
            u64::try_from(wide / u128::from(train.report.tokens.max(1))).unwrap_or(u64::MAX)
        }
    };
    let evaluation = evaluation.saturating_mul(train.rows.passes());
    let adapter = Trained::Adapter { rank: 16 };
    let longest = test.as_ref().map_or(0, |test| test.report.longest).max(train.report.longest) as usize;
    let shard = train.rows.lengths().into_iter().max().unwrap_or(0).max(SHARD_TOKENS).max(longest);
    let mut evaluation_memory_bytes = evaluation_bytes(base.config(), longest, 1);
    if train.rows.passes() > 1 {
        // Beside a checkpoint of all weights the base stays in memory.
        evaluation_memory_bytes += 4 * base.parameters() as u64;
    }
    Ok(Report {
        base_parameters: base.parameters() as u64,
        context: fit as u64,
        evaluation_tokens,
        evaluation_cpu_ms: evaluation / speed,
        evaluation_memory_bytes,
        epoch_cpu_ms: (epoch / speed).saturating_mul(training_factor_tenths(adapter, false)) / 10,
        memory_bytes: training_bytes(base.config(), adapter, shard, 1, false),
        training: train.report,
        evaluation: test.map(|test| test.report),
        overlap,
        leaks,
        warnings,
        base_loss_micro,
    })
}

fn overlap(train: &Scan, test: &Scan) -> Vec<u64> {
    let mut known = BTreeMap::new();
    for (line, prompt, whole) in &train.keys {
        known.extend(prompt.map(|prompt| (*prompt.as_bytes(), *line)));
        known.insert(*whole.as_bytes(), *line);
    }
    let found = |key: &blake3::Hash| known.contains_key(key.as_bytes());
    let leaks =
        test.keys.iter().filter(|(_, prompt, whole)| prompt.as_ref().is_some_and(found) || found(whole));
    leaks.map(|(line, _, _)| *line).collect()
}
