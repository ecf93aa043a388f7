//! Races in words: a small language for one task, and who got what in the end.

use tiltyard_ledger::query;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::score::Row;
use tiltyard_proto::state::{BondFate, EntrantVerdict, Reason};
use tiltyard_proto::task::{Payout, TaskKind};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::MicroCredits;

use crate::race::{BOND, Checkpoint, POT, row, spec};
use crate::world::{JUDGES, World, micro, percent};

/// Runs a whole task and prints who got what. Lines, scores being equal on all judges unless a judge is named:
///
/// ```text
/// base: 9000 9000            scores of the untouched base, one per example
/// a: 4000 4000               a miner with its scores; miners commit one block after another, as listed
/// = b: 4000 4000             commits in the same block as the one before
/// copy-of-a c: 4000 4000     carries the same weights file
/// reference d: 6000 6000     enters the reference recipe
/// stake: 100 100 100 100     stakes of v1 to v4
/// v4 a: crashed              what one judge says of one row
/// v3: absent                 a judge that opens nothing
/// winner-takes-all | grpo | min-gain 5 | pot 1000
/// ```
pub(crate) fn run(text: &str) -> String {
    let plan = Plan::read(text);
    let examples = u32::try_from(match &plan.base {
        Row::Scores(scores) => scores.len(),
        Row::Fault(_) => 2,
    })
    .expect("small");
    let mut world = World::with(plan.stakes, crate::world::params());
    let mut task_spec = spec(examples);
    task_spec.payout = plan.payout;
    task_spec.min_gain = percent(plan.min_gain);
    task_spec.pot = micro(plan.pot);
    if plan.grpo {
        task_spec.kind = TaskKind::Grpo { tokens_max: 8 };
    }
    let before: Vec<u64> = JUDGES.iter().map(|judge| world.balance(judge)).collect();
    let task = world.open(task_spec);
    let requester = world.balance("r");
    commit_all(&mut world, task, &plan);
    world.close_commits(task);
    let reveals: Vec<_> =
        plan.miners.iter().map(|miner| (miner.name.as_str(), miner.checkpoint.reveal(task))).collect();
    assert!(world.block(&reveals).iter().all(Result::is_ok));
    world.close_reveals(task);
    world.hold(task, &JUDGES);
    world.close_held(task);
    world.open_key(task);
    let scores = plan.rows(&world, task);
    world.seal(task, &scores);
    let present: Vec<_> =
        scores.into_iter().filter(|(judge, _)| !plan.absent.iter().any(|name| name == judge)).collect();
    world.unseal(task, &present);
    report(&world, task, requester, &before)
}

fn commit_all(world: &mut World, task: TaskId, plan: &Plan) {
    let mut at = 0;
    while at < plan.miners.len() {
        let mut together = vec![&plan.miners[at]];
        at += 1;
        while at < plan.miners.len() && plan.miners[at].same_block {
            together.push(&plan.miners[at]);
            at += 1;
        }
        let actions: Vec<_> = together
            .iter()
            .map(|miner| {
                let commitment = miner.checkpoint.commitment(world, task, &miner.name);
                let bond = if miner.reference { MicroCredits::ZERO } else { micro(BOND) };
                let reference = miner.reference;
                (miner.name.as_str(), Action::Commit { task, commitment, bond, stamp: None, reference })
            })
            .collect();
        assert!(world.block(&actions).iter().all(Result::is_ok));
    }
}

struct Entry {
    name: String,
    row: Row,
    same_block: bool,
    reference: bool,
    checkpoint: Checkpoint,
}

struct Plan {
    base: Row,
    stakes: [u64; 4],
    miners: Vec<Entry>,
    /// Judge, subject, row.
    opinions: Vec<(String, String, Row)>,
    absent: Vec<String>,
    payout: Payout,
    grpo: bool,
    min_gain: i64,
    pot: u64,
}

impl Plan {
    fn read(text: &str) -> Self {
        let mut plan = Self {
            base: row("1"),
            stakes: [100; 4],
            miners: Vec::new(),
            opinions: Vec::new(),
            absent: Vec::new(),
            payout: Payout::ThreePlaces,
            grpo: false,
            min_gain: 1,
            pot: POT,
        };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_once(':') {
                None => plan.option(line),
                Some((head, tail)) => {
                    plan.line(&head.split_whitespace().collect::<Vec<_>>(), tail.trim());
                }
            }
        }
        plan
    }

    fn option(&mut self, line: &str) {
        match line.split_once(' ') {
            None if line == "winner-takes-all" => self.payout = Payout::WinnerTakesAll,
            None if line == "grpo" => self.grpo = true,
            Some(("min-gain", value)) => self.min_gain = value.parse().expect("percent"),
            Some(("pot", value)) => self.pot = value.parse().expect("micro-credits"),
            _ => panic!("unknown option {line:?}"),
        }
    }

    fn line(&mut self, head: &[&str], tail: &str) {
        match head {
            ["base"] => self.base = row(tail),
            ["stake"] => {
                for (slot, stake) in self.stakes.iter_mut().zip(tail.split_whitespace()) {
                    *slot = stake.parse().expect("stake");
                }
            }
            [judge] if judge.starts_with('v') && tail == "absent" => self.absent.push((*judge).into()),
            [judge, subject] if judge.starts_with('v') => {
                self.opinions.push(((*judge).into(), (*subject).into(), row(tail)));
            }
            [name] => self.miner(name, tail, false, name, false),
            ["=", name] => self.miner(name, tail, true, name, false),
            ["reference", name] => self.miner(name, tail, false, name, true),
            [copy, name] if copy.starts_with("copy-of-") => {
                self.miner(name, tail, false, &copy["copy-of-".len()..], false);
            }
            other => panic!("unknown line {other:?}"),
        }
    }

    fn miner(&mut self, name: &str, scores: &str, same_block: bool, weights: &str, reference: bool) {
        let recipe = if reference { "reference" } else { name };
        let checkpoint = Checkpoint::new(name, weights, recipe);
        self.miners.push(Entry { name: name.into(), row: row(scores), same_block, reference, checkpoint });
    }

    fn rows(&self, world: &World, task: TaskId) -> Vec<(&'static str, Vec<Row>)> {
        let subjects: Vec<String> = world.task(task).entrants.iter().map(|miner| world.name(miner)).collect();
        JUDGES
            .iter()
            .map(|judge| {
                let says = |subject: &str, honest: &Row| {
                    let opinion = self.opinions.iter().find(|(who, of, _)| who == judge && of == subject);
                    opinion.map_or(honest, |(_, _, row)| row).clone()
                };
                let mut rows = vec![says("base", &self.base)];
                for subject in &subjects {
                    let entry = self.miners.iter().find(|miner| miner.name == *subject).expect("listed");
                    rows.push(says(subject, &entry.row));
                }
                (*judge, rows)
            })
            .collect()
    }
}

fn report(world: &World, task: TaskId, requester: u64, before: &[u64]) -> String {
    let verdict = query::verdict(&world.state, &task).expect("readable").expect("the task is over");
    let mut out = format!("{:?}\n", verdict.phase);
    for miner in &verdict.entrants {
        let entrant = query::entrant_verdict(&world.state, &task, miner).expect("readable").expect("listed");
        out += &format!("{}: {}\n", world.name(miner), describe(world, &entrant));
    }
    let judges: Vec<String> = JUDGES
        .iter()
        .zip(before)
        .map(|(judge, before)| (world.balance(judge) - before).to_string())
        .collect();
    out += &format!(
        "judges: {}; returned {}; burned {}\n",
        judges.join(" "),
        world.balance("r") - requester,
        verdict.burned
    );
    out
}

pub(crate) fn describe(world: &World, entrant: &EntrantVerdict) -> String {
    let name = |key| world.name(key);
    let reason = match &entrant.reason {
        Reason::Ranked { rank } => format!("rank {rank}"),
        Reason::RankedByEarlierCommit { rank, leader } => {
            format!("rank {rank}, earlier than {}", name(leader))
        }
        Reason::TiedWithEarlier { rank, ahead, mean_gap, needed } => {
            format!("rank {rank}, tied with earlier {}: gap {mean_gap}, needed {needed}", name(ahead))
        }
        Reason::Duplicate { of, close } => format!("duplicate of {} ({close} ppm)", name(of)),
        Reason::BelowGain { .. }
        | Reason::NotBetterThanBase { .. }
        | Reason::Faulty { .. }
        | Reason::NotRevealed
        | Reason::NotHeld { .. }
        | Reason::HeldByTooFew { .. }
        | Reason::NoVerdict { .. }
        | Reason::Reference => format!("{:?}", entrant.reason),
    };
    let bond = match entrant.bond {
        BondFate::None | BondFate::Returned(_) => "",
        BondFate::Burned(_) => ", bond burned",
    };
    let reward = if entrant.reward == MicroCredits::ZERO {
        String::new()
    } else {
        format!(", paid {}", entrant.reward)
    };
    let reference =
        entrant.reference_gain.map_or(String::new(), |gain| format!(", {gain} ppm over the reference"));
    format!("{reason}{reward}{bond}{reference}")
}
