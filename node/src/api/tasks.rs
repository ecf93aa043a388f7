//! Tasks, live and over: one form for both.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::json;
use tiltyard_keys::PublicKey;
use tiltyard_ledger::{StateRead, query};
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::recipe::Recipe;
use tiltyard_proto::state::{EntrantRecord, EntrantStage, EntrantVerdict, Phase, TaskRecord, Verdict};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::Height;
use tiltyard_store::{ChainRead as _, StoreError, StoreReader};

use super::{App, Refusal, model};
use crate::words;

/// Most tasks in one answer, newest first.
const LISTED_MAX: usize = 200;

pub(super) async fn list(State(app): State<App>) -> Result<Json<model::Tasks>, Refusal> {
    app.read(|app| {
        let mut ids = query::live_tasks(&app.reader)?;
        for id in app.shared.known_tasks() {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let mut tasks = Vec::new();
        for id in ids {
            if let Some(task) = show(&app.reader, &id)? {
                tasks.push(task);
            }
        }
        tasks.sort_by_key(|task| core::cmp::Reverse(task.posted_at));
        tasks.truncate(LISTED_MAX);
        Ok(Json(model::Tasks { tasks }))
    })
    .await
}

pub(super) async fn one(
    State(app): State<App>,
    Path(id): Path<TaskId>,
) -> Result<Json<model::Task>, Refusal> {
    app.read(move |app| {
        let view = app.reader.view();
        show(&view, &id)?.map(Json).ok_or_else(|| unknown(&id))
    })
    .await
}

fn unknown(id: &TaskId) -> Refusal {
    Refusal::unknown(format!(
        "no task {id} on the ledger; copy the whole id, or wait until the node has caught up"
    ))
}

/// Options of `why`.
#[derive(Debug, Deserialize)]
pub(super) struct WhyOptions {
    miner: Option<PublicKey>,
}

pub(super) async fn why(
    State(app): State<App>,
    Path(id): Path<TaskId>,
    Query(options): Query<WhyOptions>,
) -> Result<Json<model::Why>, Refusal> {
    app.read(move |app| {
        let view = app.reader.view();
        let record = query::task(&view, &id)?.ok_or_else(|| unknown(&id))?;
        let verdict = query::verdict(&view, &id)?;
        let miners = verdict.as_ref().map_or(&record.entrants, |verdict| &verdict.entrants);
        let mut entrants = Vec::new();
        for miner in miners.iter().filter(|miner| options.miner.is_none_or(|wanted| wanted == **miner)) {
            let Some(found) = query::entrant_verdict(&view, &id, miner)? else {
                entrants.push(model::WhyEntrant {
                    miner: miner.to_string(),
                    rank: None,
                    reason: format!("not judged yet: the task is {}", words::phase(record.phase)),
                    detail: serde_json::Value::Null,
                });
                continue;
            };
            entrants.push(model::WhyEntrant {
                miner: miner.to_string(),
                rank: found.rank,
                reason: words::reason(&found.reason),
                detail: json!(found.reason),
            });
        }
        if let (Some(wanted), true) = (options.miner, entrants.is_empty()) {
            return Err(Refusal::unknown(format!("{wanted} has no entry in task {id}")));
        }
        Ok(Json(model::Why {
            task: id.to_string(),
            phase: words::phase(record.phase).to_owned(),
            outcome: outcome(record.phase),
            entrants,
        }))
    })
    .await
}

fn outcome(phase: Phase) -> String {
    match phase {
        Phase::Refunded(cause) => words::refund_cause(cause),
        Phase::Settled => "settled by the committee's scores".to_owned(),
        Phase::Accepting
        | Phase::Committing
        | Phase::Revealing
        | Phase::Holding
        | Phase::KeyOpening
        | Phase::ScoreCommitting
        | Phase::ScoreOpening => format!("still {}", words::phase(phase)),
    }
}

/// Puts a task together from the state.
pub(super) fn show(state: &dyn StateRead, id: &TaskId) -> Result<Option<model::Task>, Refusal> {
    let Some(record) = query::task(state, id)? else {
        return Ok(None);
    };
    let verdict = query::verdict(state, id)?;
    let entrants = entrants(state, id, &record, verdict.as_ref())?;
    let winner = entrants.iter().find(|entrant| entrant.rank == Some(1)).map(|entrant| entrant.miner.clone());
    let spec = &record.spec;
    let ends = &record.deadlines;
    let blob = |blob: &tiltyard_proto::manifest::BlobRef| model::BlobName {
        root: blob.root.to_string(),
        bytes: blob.bytes,
    };
    Ok(Some(model::Task {
        id: id.to_string(),
        title: spec.title.clone(),
        kind: spec.kind.name().to_owned(),
        phase: words::phase(record.phase).to_owned(),
        refund_cause: match record.phase {
            Phase::Refunded(cause) => Some(words::refund_cause(cause)),
            Phase::Accepting
            | Phase::Committing
            | Phase::Revealing
            | Phase::Holding
            | Phase::KeyOpening
            | Phase::ScoreCommitting
            | Phase::ScoreOpening
            | Phase::Settled => None,
        },
        posted_at: record.posted_at.get(),
        deadlines: model::Deadlines {
            open: ends.open.get(),
            commit: ends.commit.get(),
            reveal: ends.reveal.get(),
            held: ends.held.get(),
            key: ends.key.get(),
            score_commit: ends.score_commit.get(),
            score_open: ends.score_open.get(),
        },
        requester: record.requester.to_string(),
        pot: spec.pot.get(),
        bond: spec.bond.get(),
        checkpoint_bytes_max: spec.checkpoint_bytes_max,
        min_gain_ppm: spec.min_gain.get(),
        examples: spec.evaluation.examples,
        accepted: record.accepted.len(),
        committee_stake: record.committee_stake.get(),
        base: blob(&spec.base),
        training: blob(&spec.training),
        evaluation: blob(&spec.evaluation.ciphertext),
        base_mean_micro: verdict.as_ref().and_then(|verdict| verdict.base_mean),
        winner,
        settled_at: verdict.as_ref().map(|verdict| verdict.settled_at.get()),
        money: verdict.as_ref().map(|verdict| model::Money {
            miners: verdict.paid_miners.get(),
            judges: verdict.paid_judges.get(),
            returned: verdict.returned.get(),
            burned: verdict.burned.get(),
        }),
        entrants,
    }))
}

fn entrants(
    state: &dyn StateRead,
    id: &TaskId,
    record: &TaskRecord,
    verdict: Option<&Verdict>,
) -> Result<Vec<model::Entrant>, Refusal> {
    let miners = verdict.map_or(&record.entrants, |verdict| &verdict.entrants);
    let mut list = Vec::new();
    for miner in miners {
        if let Some(found) = query::entrant_verdict(state, id, miner)? {
            list.push(judged(&found));
        } else if let Some(found) = query::entrant(state, id, miner)? {
            list.push(running(miner, &found));
        }
    }
    Ok(list)
}

fn judged(found: &EntrantVerdict) -> model::Entrant {
    let recipe = found.recipe.as_ref().and_then(|bytes| Recipe::decode(bytes).ok());
    model::Entrant {
        miner: found.miner.to_string(),
        commit_height: found.committed_at.get(),
        stage: "judged".to_owned(),
        strategy: recipe.as_ref().map(words::strategy),
        tokens_trained: recipe.as_ref().map(|recipe| recipe.tokens_trained),
        mean_micro: found.mean,
        gain_ppm: found.gain.map(tiltyard_proto::units::Ppm::get),
        reference_gain_ppm: found.reference_gain.map(tiltyard_proto::units::Ppm::get),
        rank: found.rank,
        reason: words::reason(&found.reason),
        reward: found.reward.get(),
        bond: Some(words::bond(found.bond)),
        manifest: found.manifest.map(|root| root.to_string()),
        recipe,
    }
}

fn running(miner: &PublicKey, found: &EntrantRecord) -> model::Entrant {
    let (stage, reveal) = match &found.stage {
        EntrantStage::Committed => ("committed", None),
        EntrantStage::Revealed(reveal) => ("revealed", Some(reveal)),
        EntrantStage::Standing(reveal) => ("standing", Some(reveal)),
    };
    let recipe = reveal.and_then(|reveal| Recipe::decode(&reveal.recipe).ok());
    model::Entrant {
        miner: miner.to_string(),
        commit_height: found.committed_at.get(),
        stage: stage.to_owned(),
        strategy: recipe.as_ref().map(words::strategy),
        tokens_trained: recipe.as_ref().map(|recipe| recipe.tokens_trained),
        mean_micro: None,
        gain_ppm: None,
        reference_gain_ppm: None,
        rank: None,
        reason: format!("not judged yet: {stage}"),
        reward: 0,
        bond: Some(found.bond.to_string()),
        manifest: reveal.map(|reveal| reveal.manifest.to_string()),
        recipe,
    }
}

/// Finds the tasks posted in the newest `blocks_max` blocks.
pub(crate) fn posted_tasks(reader: &StoreReader, blocks_max: u64) -> Result<Vec<TaskId>, StoreError> {
    let tip = reader.tip().get();
    let mut found = Vec::new();
    for height in tip.saturating_sub(blocks_max).max(1)..=tip {
        let Some(decided) = reader.block(Height::new(height))? else {
            continue;
        };
        for signed in &decided.block.body.transactions {
            if matches!(signed.transaction.action, Action::Post(_)) {
                found.push(TaskId::from_bytes(*signed.transaction.id().as_bytes()));
            }
        }
    }
    Ok(found)
}
