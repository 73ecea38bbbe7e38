"""CLAP4CLIP's metrics and exemplar choices, from stored predictions."""

import numpy as np
import pytest

from bench.learning.evaluation import Cell
from bench.results import accuracy, calibration, novelty
from methods.shared import selection
from tests.conformance import stored_logits

SELECTIONS = {
    "sel_entropy": "entropy",
    "sel_distance": "distance",
    "sel_herding_logits": "herding",
    "sel_random": "first",
    "sel_variance_corrected": "variance",
    "sel_energy_corrected": "energy",
}


class Predictions:
    """What the files hold, as arrays over all images of all tasks."""

    def __init__(self, vectors):
        self.tasks = vectors.params["n_tasks"]
        labels = [vectors[f"labels_task{t}"] for t in range(self.tasks)]
        self.labels = np.concatenate(labels)
        self.owner = np.repeat(np.arange(self.tasks), [len(own) for own in labels])  # task of each image
        self.sampled = [vectors[f"logits_step{s}"].astype(float) for s in range(self.tasks)]  # (images, samples, seen)
        self.mean = [logits.mean(axis=1) for logits in self.sampled]

        self.classes_per_task = np.broadcast_to(vectors.params["classes_per_task"], self.tasks).tolist()  # one number, or each

    def scores(self, step: int) -> list[Cell]:
        """What the model after a step says of the images of every task, among the classes seen so far."""
        found = stored_logits.cells(self.mean[step], self.labels, self.classes_per_task, step)
        return [cell for cell in found if cell.candidates == "seen"]

    def cells(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(confidence, correct) of every seen task."""
        seen = self.scores(step)[: step + 1]
        return [(cell.confidence, cell.prediction == self.labels[self.owner == cell.eval_task]) for cell in seen]


def _accuracies(data: Predictions, params: dict) -> dict:
    matrices, _ = stored_logits.accuracy_matrices(data.mean, data.labels, data.classes_per_task)
    seen, task = matrices["seen"], matrices["task"]
    return {
        "acc_matrix": seen,
        "acc_step": accuracy.after_each_task(seen),
        "taw_step": accuracy.after_each_task(task),
        "last": accuracy.last(seen),
        "avg": accuracy.avg(seen),
        "bwt_step": [accuracy.bwt(seen[: s + 1, : s + 1]) for s in range(data.tasks)],
    }


def _calibration(data: Predictions, params: dict) -> dict:
    bins, batch = params["ece_bins"], params["test_batch_size"]
    cells = [data.cells(s) for s in range(data.tasks)]
    return {
        "ece_batchmean_step": [calibration.ece_batched(own, batch, bins) for own in cells],
        "ece_fullset": [calibration.ece(*(np.concatenate(part) for part in zip(*own)), bins) for own in cells],
    }


def _novelty(data: Predictions, params: dict) -> dict:
    values, moments = {}, []
    for s in range(data.tasks - 1):
        energies = [cell.energy for cell in data.scores(s)]
        seen, novel = np.concatenate(energies[: s + 1]), np.concatenate(energies[s + 1 :])
        values |= {f"energy_id_step{s}": seen, f"energy_ood_step{s}": novel}
        moments.append((seen, novel))
    functions = [novelty.auroc, novelty.aupr, lambda seen, novel: novelty.fpr95(seen, novel, params["fpr_at_tpr"])]
    values["auroc_aupr_fpr95_step"] = [[function(*moment) for function in functions] for moment in moments]
    values["auroc_aupr_fpr95_mean"] = [novelty.over_moments(function, moments) for function in functions]
    return values


def _selections(data: Predictions, params: dict, per_class: int) -> dict:
    logits = data.sampled[-1]
    mixed = selection.mix_samples_as_released(logits, params["as_released_selection_batch_size"])
    chosen = {name: selection.select(rule, logits, data.labels, per_class) for name, rule in SELECTIONS.items()}
    chosen["sel_variance_asreleased"] = selection.select("variance", mixed, data.labels, per_class)
    chosen["sel_energy_asreleased"] = selection.select("energy", mixed, data.labels, per_class)
    scores = {
        "score_entropy": -selection.entropy_score(logits, data.labels),
        "score_energy": selection.energy_score(logits, data.labels),
        "score_variance": selection.variance_score(logits, data.labels),
    }
    return chosen | {name: score.astype(np.float32) for name, score in scores.items()}  # as they are stored


@pytest.mark.vectors("metrics-clap", methods=())
def test_metrics_and_selections_equal_the_reference(vectors):
    data, params = Predictions(vectors), vectors.params
    actual = _accuracies(data, params) | _calibration(data, params) | _novelty(data, params)
    actual |= _selections(data, params, int(vectors["m_per_class"]))
    vectors.check(actual, dtype=vectors.facts["dtype"])
