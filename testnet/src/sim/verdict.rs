//! The end of a run: everyone level, the verdict as honest judges found it, the pot paid out to the last credit.

use tiltyard_ledger::query;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::score::{Fault, Row};
use tiltyard_proto::state::{Phase, Reason};

use super::violation::Violation;
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
    /// Says whether a task was settled, not refunded.
    pub(crate) fn is_settled(&self) -> bool {
        self.clients.tasks().any(|(task, _)| self.oracle.verdict(&task).is_some_and(|ended| ended.is_settled))
    }

    /// Checks what can only be seen at the end.
    pub(crate) fn check_end(&mut self) {
        let runs = |node: usize| self.plan.is_honest(node) && self.nodes[node].machine.is_some();
        let honest = (0..self.nodes.len()).find(|node| runs(*node));
        let Some(honest) = honest.filter(|_| self.plan.shape.byzantine <= self.plan.shape.tolerated()) else {
            return;
        };
        let mut found = Vec::new();
        for (task, post) in self.clients.tasks() {
            match self.oracle.included(&post) {
                // Signed anew under another number.
                None => {}
                Some((posted_at, true)) => found.extend(self.verdict_of(honest, &task, posted_at).err()),
                Some((height, false)) => found.push(format!("the post in block {height} was refused")),
            }
        }
        found.into_iter().for_each(|fact| self.oracle.say(Violation::Verdict { fact }));
    }

    fn verdict_of(&self, node: usize, task: &TaskId, posted_at: u64) -> Result<(), String> {
        let content = self.nodes[node].disk.live.borrow();
        let read = |error: tiltyard_ledger::ReadError| error.to_string();
        let Some(verdict) = query::verdict(&*content, task).map_err(read)? else {
            // One that was posted beside the task that ended the run.
            return if self.is_settled() { Ok(()) } else { Err("there is none".to_owned()) };
        };
        let parts = [verdict.paid_miners, verdict.paid_judges, verdict.returned, verdict.burned];
        let sum: u64 = parts.iter().map(|part| part.get()).sum();
        if sum != verdict.pot.get() {
            return Err(format!("pot of {} was paid out as {parts:?}", verdict.pot));
        }
        if verdict.phase != Phase::Settled {
            return Ok(());
        }
        // Deadlines are heights: no clock, no absence and no late round moves the end of a task.
        let windows = self.market.spec().windows.each();
        let due = posted_at + windows.iter().map(|window| window.get()).sum::<u64>();
        if verdict.settled_at.get() != due {
            return Err(format!("settled after block {}, due after block {due}", verdict.settled_at));
        }
        if verdict.base_mean != mean(&self.market.row(None)) {
            return Err(format!("the base has mean {:?}", verdict.base_mean));
        }
        for miner in &verdict.entrants {
            let entrant = query::entrant_verdict(&*content, task, miner).map_err(read)?;
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
