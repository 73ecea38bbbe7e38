"""Records of runs that never ran, for tests of tables and metrics."""

import numpy as np
import pandas as pd

LEVELS = {"zero-shot": 0.55, "finetune": 0.40, "coop": 0.65, "cgil": 0.80, "joint": 0.85}
SHIFT = {"seen": 0.0, "task": 0.1, "future": -0.05, "all": -0.1}


def fake_records(
    methods=("zero-shot", "finetune", "coop", "cgil"), tasks=3, seeds=(0, 1, 2), orders=(0,), names=None, noise=0.01, **fixed
) -> pd.DataFrame:
    """Rows like those of finished runs: zero-shot never changes, the others vary a little, "joint" has its last row only."""
    rows, random = [], np.random.default_rng(0)
    common = {
        "schema": 1, "protocol": "mini60-6x10", "protocol_version": "1", "scenario": "class-incremental", "overrides": "",
        "backbone": "mini", "pretrained": "mini", "templates": "1a2b3c4d", "exemplars": "none", "limits": "", **fixed,
    }  # fmt: skip
    for method in methods:
        for order in orders:
            for seed in seeds:
                run_id = "-".join(map(str, [method, order, seed, *common.values()]))
                for after in range(tasks - 1 if method == "joint" else 0, tasks):
                    for evaluated in range(tasks):
                        for candidates in ("seen", "task") if evaluated <= after else ("all", "future", "task"):
                            wobble = 0 if method == "zero-shot" else random.normal(0, noise)
                            value = np.clip(LEVELS.get(method, 0.6) + SHIFT[candidates] + wobble, 0, 1)
                            rows.append(
                                {
                                    **common, "run_id": run_id, "method": method, "order_seed": order, "seed": seed,
                                    "after_task": after, "eval_task": evaluated,
                                    "eval_name": names[evaluated] if names else f"task {evaluated + 1}",
                                    "candidates": candidates, "metric": "accuracy", "value": round(200 * value) / 200, "n": 200,
                                }
                            )  # fmt: skip
    return pd.DataFrame(rows)
