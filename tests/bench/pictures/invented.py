"""Results of runs that never ran, of as many methods as a picture is to be tried with."""

import numpy as np
import pandas as pd

from bench.results.loaded import Results
from tests.results_folder import CONDITIONS

NAMES = (
    "zero-shot joint ranpac slca rail-dual linear-probe rail-primal bofa icarl-nme joint-prompts derpp clg-cbm cca-cl cgil "
    "cca-cl-frozen simplecil star-prompt er engine mg-clip zscl-star dualprompt rapf coda-prompt zscl clap-coop lada proof "
    "l2-wc magmax zscl-minus coop clap-coop-novi condu dpw l2p clap-attriclip moe-adapters clap-maple clap clap-novi icarl "
    "coleclip lwf-vr we clip-adapter maple cocoop diki wise-ft lwf vpt attriclip continual-clip finetune"
).split()  # real names, so that the labels are as long as they are in earnest


def invented(methods: int, protocols: int = 1, seeds: int = 3, tasks: int = 10, samples: bool = False, **conditions) -> Results:
    """Finished runs of so many methods, zero-shot and a joint one among them. samples: with per-image arrays (slow for many)."""
    random = np.random.default_rng(0)
    rows, manifests, arrays = [], {}, {}
    for protocol in range(protocols):
        for place, method in enumerate(NAMES[:methods]):
            level = 0.45 if method == "zero-shot" else 0.92 - 0.5 * place / len(NAMES) * random.uniform(0.6, 1.4)
            for seed in range(seeds):
                run = f"{protocol}-{method}-{seed}"
                facts = CONDITIONS | {"protocol": f"stream-{protocol}", "method": method, "schema": 1} | conditions
                facts |= {"run_id": run, "order_seed": 0, "seed": seed, "metric": "accuracy", "n": 200}
                drift = 0.0 if method == "zero-shot" else random.uniform(0.005, 0.03)
                joint = method in ("joint", "joint-prompts", "linear-probe")
                rows += _cells(facts, level, drift, tasks, joint, random)
                manifests[run] = {
                    "cost": {
                        "seconds_per_task": [{"learn": float(np.exp(random.normal(1 + place / 20, 0.8)))}] * tasks,
                        "exemplar_bytes": int(random.choice([0, 0, 300_000, 5_000_000])),
                        "state_bytes": 0 if method == "zero-shot" else int(np.exp(random.normal(13, 2))),
                    },
                    "environment": {"device": "cpu x86_64"},
                }
                if samples:
                    confidence = random.uniform(0, 1, 200).astype(np.float32)
                    arrays[run] = {f"labels/{task}": np.zeros(200, dtype=np.int32) for task in range(tasks)}
                    for task in range(tasks):
                        place_of = f"{tasks - 1}/{task}/seen"
                        arrays[run][f"confidence/{place_of}"] = confidence
                        arrays[run][f"prediction/{place_of}"] = (random.uniform(0, 1, 200) > confidence).astype(np.int32)
    return Results(pd.DataFrame(rows), manifests, arrays.get)


def _cells(facts, level, drift, tasks, joint, random):
    """The rows of one run's records."""
    rows = []
    for after in range(tasks - 1 if joint else 0, tasks):
        for task in range(tasks):
            learned = task <= after
            value = level - drift * (after - task) if learned else 0.45 - 0.4 * drift * after
            value = float(np.clip(value + random.normal(0, 0.015), 0, 1))
            where = {"after_task": after, "eval_task": task, "eval_name": f"task {task + 1}"}
            rows.append({**facts, **where, "candidates": "seen" if learned else "all", "value": value})
    return rows
