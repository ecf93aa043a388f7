//! The market: the ledger's own ranking over what miners scored on the judges' rows, and who is paid what.

use std::collections::BTreeMap;

use tiltyard_ledger::ranking::{Scored, Terms, rank};
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::FileHash;
use tiltyard_proto::state::TaskRules;
use tiltyard_proto::units::{Height, Ppm};

use super::cell::Cell;
use super::play::rival::Rival;

/// Smallest gain over the base that is paid: one percent.
const MIN_GAIN: Ppm = Ppm::new(10_000);

/// Settles a task among miners: returns who wins by the ledger's rule, none when nobody is eligible.
///
/// The judges' rows alone decide; the reported rows are not looked at.
pub(super) fn winner<'a>(base: &Cell, miners: &[&'a Cell]) -> Option<&'a Cell> {
    let field: Vec<Scored> = miners
        .iter()
        .filter(|cell| cell.fault.is_none())
        .map(|cell| {
            let hash = blake3::hash(format!("{} {} {}", cell.task, cell.seed, cell.rival).as_bytes());
            let miner = cell.rival.parse::<Rival>().unwrap_or(Rival::Base).key();
            Scored {
                miner,
                scores: cell.sealed.clone(),
                // All commit in the last block of the window; what decides ties then is a hash nobody knew.
                priority: (Height::new(1), *hash.as_bytes()),
                weights: FileHash::from_bytes(*hash.as_bytes()),
                reference: false,
            }
        })
        .collect();
    let rules = TaskRules::of(&Params::default_for(4));
    let terms = Terms { base: &base.sealed, min_gain: MIN_GAIN, continuous: true, rules: &rules };
    let stands: BTreeMap<_, _> =
        field.iter().map(|entrant| entrant.miner).zip(rank(&field, &terms)).collect();
    miners.iter().copied().find(|cell| {
        let miner = cell.rival.parse::<Rival>().map(|rival| rival.key());
        cell.fault.is_none()
            && miner.is_ok_and(|miner| stands.get(&miner).is_some_and(|stand| stand.rank == Some(1)))
    })
}

/// What a market of miners gives the requester, as if it were one rival: the winner's scores, all miners' tokens.
pub(super) fn market(name: &str, base: &Cell, miners: &[&Cell]) -> Cell {
    let best = winner(base, miners);
    let scores = best.unwrap_or(base);
    Cell {
        rival: name.to_owned(),
        tokens: miners.iter().map(|cell| cell.tokens).sum(),
        cpu_s: miners.iter().map(|cell| cell.cpu_s).sum(),
        budget: miners.iter().map(|cell| cell.budget).sum(),
        code: miners.first().map_or_else(String::new, |cell| cell.code.clone()),
        sealed: scores.sealed.clone(),
        report: scores.report.clone(),
        fault: best.is_none().then(|| "no miner was eligible: refunded".to_owned()),
        recipe: best.and_then(|cell| cell.recipe.clone()),
        ..base.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::sample;
    use super::*;

    #[test]
    fn the_judges_rows_decide_and_the_reported_rows_do_not() {
        let base = sample("t", 1, "base", 3_000_000);
        let (mut a, mut b) = (sample("t", 1, "search:0", 2_000_000), sample("t", 1, "search:1", 1_900_000));
        (a.report, b.report) = (b.report.clone(), a.report.clone());
        let made = market("market-2", &base, &[&a, &b]);
        assert_eq!(made.report, b.report, "b is better for the judges and worse where nobody looks");
        assert_eq!((made.tokens, made.budget, made.fault), (2_000, 2_000, None));
    }

    #[test]
    fn without_an_eligible_miner_the_requester_is_left_with_the_base() {
        let base = sample("t", 1, "base", 3_000_000);
        let worse = sample("t", 1, "search:0", 3_100_000);
        let mut failed = sample("t", 1, "search:1", 1_000_000);
        failed.fault = Some("diverged".into());
        let made = market("market-2", &base, &[&worse, &failed]);
        assert_eq!(made.report, base.report);
        assert!(made.fault.is_some());
    }
}
