"""Optuna's TPE with pruning, asked for one trial after the other by `tiltyard-testnet bench market`.

Speaks JSON lines. Started with one line: {"seed": N, "full": bool, "spaces": {...}, "past": [...]}.
Then, for each trial, it is sent {"ask": true} and answers {"params": {...}}; it is sent
{"rung": N, "loss": X} and answers {"prune": bool}; it is sent {"tell": X or null} and answers
{"ok": true}. It trains nothing and counts nothing: the asker does, with its own trainer.
"""

import json
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def answer(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def suggest(trial, start):
    spaces = start["spaces"]
    method = trial.suggest_categorical("method", ["lora", "full"]) if start["full"] else "lora"
    low, high = spaces["full_rates"] if method == "full" else spaces["adapter_rates"]
    params = {
        "full": method == "full",
        "learning_rate": trial.suggest_float(f"learning_rate_{method}", low, high, log=True),
        "batch_rows": trial.suggest_categorical("batch_rows", spaces["rows"]),
        "schedule": trial.suggest_categorical("schedule", ["linear", "cosine"]),
        "average": trial.suggest_categorical("average", [False, True]),
        "rank": spaces["ranks"][0],
        "attention_only": False,
        "dropout": 0.0,
    }
    if method == "lora":
        params["rank"] = trial.suggest_categorical("rank", spaces["ranks"])
        params["attention_only"] = trial.suggest_categorical("attention_only", [False, True])
        params["dropout"] = trial.suggest_categorical("dropout", spaces["dropouts"])
    return params


def main():
    start = json.loads(sys.stdin.readline())
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=start["seed"], multivariate=True, group=True, n_startup_trials=4),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=0),
    )
    for past in start.get("past", []):
        study.enqueue_trial(past)
    trial = None
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("ask"):
            trial = study.ask()
            answer({"params": suggest(trial, start)})
        elif "rung" in message:
            trial.report(message["loss"], message["rung"])
            answer({"prune": bool(trial.should_prune())})
        else:
            loss = message["tell"]
            if message.get("pruned"):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            elif loss is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, loss)
            answer({"ok": True})


main()
