//! The end of a run: everyone level, the verdict as honest judges found it, the pot paid out to the last credit.

use tiltyard_ledger::query;
use tiltyard_proto::score::{Fault, Row};
use tiltyard_proto::state::{Phase, Reason};

use super::oracle::Violation;
use super::world::World;

/// Returns the mean of a row, rounded down; `None` for a fault.
fn mean(row: &Row) -> Option<u64> {
    match row {
        Row::Scores(cells) => {
            let sum: u64 = cells.iter().map(|cell| u64::from(cell.get())).sum();
            sum.checked_div(cells.len() as u64)
        }
        Row::Fault(_) => None,
    }
}

impl World {
    /// Says whether the task was settled, not refunded.
    pub(crate) fn is_settled(&self) -> bool {
        let task = self.clients.task();
        self.nodes.iter().any(|node| {
            let content = node.disk.live.borrow();
            query::verdict(&*content, &task)
                .is_ok_and(|verdict| verdict.is_some_and(|verdict| verdict.phase == Phase::Settled))
        })
    }

    /// Checks what can only be seen at the end.
    pub(crate) fn check_end(&mut self) {
        let runs = |node: usize| self.plan.is_honest(node) && self.nodes[node].machine.is_some();
        let honest = (0..self.nodes.len()).find(|node| runs(*node));
        let Some(honest) = honest.filter(|_| self.plan.shape.byzantine <= self.plan.shape.tolerated()) else {
            return;
        };
        if let Err(fact) = self.verdict_of(honest) {
            self.oracle.say(Violation::Verdict { fact });
        }
    }

    fn verdict_of(&self, node: usize) -> Result<(), String> {
        let task = self.clients.task();
        let content = self.nodes[node].disk.live.borrow();
        let read = |error: tiltyard_ledger::ReadError| error.to_string();
        match self.oracle.included(&self.clients.post_id()) {
            Some((_, true)) => {}
            other => return Err(format!("the task was not posted: {other:?}")),
        }
        let verdict = query::verdict(&*content, &task).map_err(read)?.ok_or("there is none")?;
        let parts = [verdict.paid_miners, verdict.paid_judges, verdict.returned, verdict.burned];
        let sum: u64 = parts.iter().map(|part| part.get()).sum();
        if sum != verdict.pot.get() {
            return Err(format!("pot of {} was paid out as {parts:?}", verdict.pot));
        }
        if verdict.phase != Phase::Settled {
            return Ok(());
        }
        if verdict.base_mean != mean(&self.market.row(None)) {
            return Err(format!("the base has mean {:?}", verdict.base_mean));
        }
        for miner in &verdict.entrants {
            let entrant = query::entrant_verdict(&*content, &task, miner).map_err(read)?;
            let entrant = entrant.ok_or("an entrant has no verdict")?;
            let row = self.market.row(Some(miner));
            let fits = match (&entrant.reason, &row) {
                // Judges that could not get the bytes in time may be the most.
                (Reason::Faulty { fault: Fault::Unavailable }, _) => true,
                (Reason::Faulty { fault }, Row::Fault(found)) => fault == found,
                (Reason::Faulty { .. }, Row::Scores(_)) => false,
                (_, Row::Fault(_)) => entrant.mean.is_none(),
                (_, Row::Scores(_)) => entrant.mean.is_none() || entrant.mean == mean(&row),
            };
            if !fits {
                return Err(format!("entrant {miner}: {:?}, honest judges found {row:?}", entrant.reason));
            }
        }
        Ok(())
    }
}
