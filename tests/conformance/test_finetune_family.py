"""Fine-tuning, ZSCL and its baselines against runs of ZSCL's programs: the same batches, number by number."""

import pytest
import torch

from methods.fine_tuning.icarl import ICaRL
from methods.image_tower.icarl_nme import exemplar_means, negative_squared_distances
from methods.shared.selection import herding
from tests.conformance.stored_runs import Record, StoredDraws, World, give_reference, method_of_run, places_in, snapshot


@pytest.mark.vectors("zscl", "zscl.npz", methods=("finetune", "l2-wc", "we", "zscl", "zscl-minus", "zscl-star"))
def test_zscl_and_its_parts_in_task_incremental_form(vectors, tiny, tmp_path, monkeypatch):
    check_task_incremental_runs(vectors, tiny, tmp_path, monkeypatch)


@pytest.mark.vectors("lwf", methods=("lwf", "lwf-vr"))
def test_learning_without_forgetting(vectors, tiny, tmp_path, monkeypatch):
    check_task_incremental_runs(vectors, tiny, tmp_path, monkeypatch)


@pytest.mark.vectors("wise-ft")
def test_interpolated_weights(vectors, tiny, tmp_path, monkeypatch):
    check_task_incremental_runs(vectors, tiny, tmp_path, monkeypatch)


@pytest.mark.vectors("zscl", "zscl_cil.npz", methods=("finetune", "lwf", "lwf-vr", "zscl"))
def test_class_incremental_form(vectors, tiny, tmp_path, monkeypatch):
    params, tasks = vectors.params, vectors.tasks
    actual = {}
    for name, run in params["runs"].items():
        world = World(tiny, tmp_path, vectors.facts["dtype"], "class-incremental", tasks, [params["template"]])
        draws = StoredDraws()
        method = method_of_run(run, params, world, draws, {"epochs": 1})
        give_reference(method, world, vectors["ref_idx"], params["captions"])
        test = world.unlabelled(vectors["test_idx"])
        for index, classes in enumerate(world.classes):
            place, stored = f"{name}/task{index + 1}", f"task{index + 1}"
            with monkeypatch.context() as patch:
                record = Record(method, [], patch)
                feed_draws(draws, vectors, name, index, prefix="")
                rows, positions = vectors[f"{stored}_train_idx"], vectors[f"{stored}_train_position"]
                method.learn(world.task(index, torch.from_numpy(rows), torch.from_numpy(positions)))
                actual |= {f"{place}/{what}": values for what, values in record.take().items()}
            logits = method.logits(test.pixels(), range(classes[-1] + 1))
            actual[f"{place}/eval_probs_seen"] = logits.softmax(dim=-1)
    vectors.check(actual, dtype=vectors.facts["dtype"])


@pytest.mark.vectors("icarl")
def test_icarl_on_stored_images(vectors, tiny, tmp_path, monkeypatch):
    params, precision = vectors.params, vectors.facts["dtype"]
    world = World(tiny, tmp_path, precision, "task-incremental", vectors.tasks, [params["template"]])
    draws = StoredDraws()
    method = icarl(world, params, draws)
    actual = {}
    for index in range(len(world.classes)):
        rows = torch.from_numpy(vectors[f"task{index + 1}/dataset_order_idx"])
        draws.batch_rows[index] = places_in(rows.numpy(), vectors[f"task{index + 1}/train_idx"])
        task = world.task(index, rows, world.positions(rows))
        method.grow(task)
        with monkeypatch.context() as patch:
            record = Record(method, [], patch)
            method.learn(task)
            found = record.take()
        saved = snapshot(method)
        found["watched_saved"] = torch.stack([saved[name] for name in params["watched_tensors"]])
        actual |= {f"task{index + 1}/{what}": values for what, values in found.items()}
        for old in range(index + 1):
            order = torch.from_numpy(vectors[f"task{old + 1}/dataset_order_idx"])
            actual[f"after_task{index + 1}/exemplars_T{old + 1}"] = order[method.exemplars(old)]
    vectors.check(actual | nearest_means(vectors, tiny), dtype=precision)


def icarl(world, params, draws) -> ICaRL:
    optimiser = params["optimiser"]
    weight = params["kd_weight"]
    settings = ICaRL.Settings(
        lr=optimiser["lr"], warmup=params["warmup"], iterations=params["iterations"], batch_size=params["batch_size"],
        label_smoothing=params["label_smoothing"], beta1=optimiser["betas"][0], beta2=optimiser["betas"][1],
        eps=optimiser["eps"], weight_decay=optimiser["weight_decay"], memory_size=params["memory_size"],
        image_weight=weight if params["image_kd"] else 0.0, text_weight=weight if params["text_kd"] else 0.0,
        temperature=params["distillation_temperature"], faithful_memory=True, crop_scale=1.0,
    )  # fmt: skip
    return ICaRL(settings, world.backbone, world.scenario, draws)


def nearest_means(vectors, tiny) -> dict:
    """Standard herding and nearest mean of exemplars on the stored features."""
    features, m = torch.from_numpy(vectors["nme/features"]), int(vectors["nme/exemplars_per_class"])
    chosen = []
    for c in vectors["nme/class_order"]:
        rows = torch.nonzero((tiny.labels == int(c)) & tiny.is_train).flatten()
        chosen.append(rows[torch.from_numpy(herding(features[rows].numpy(), m))])
    means = exemplar_means([features[rows] for rows in chosen])
    scores = negative_squared_distances(features[torch.from_numpy(vectors["nme/test_idx"])], means)
    positions = torch.arange(len(chosen)).repeat_interleave(torch.tensor([len(rows) for rows in chosen]))
    return {
        "nme/exemplar_idx": torch.stack(chosen),
        "nme/exemplar_position": positions,
        "nme/class_means": means,
        "nme/pred_top": scores.topk(vectors["nme/pred_top"].shape[1], dim=-1).indices,
    }


def check_task_incremental_runs(vectors, tiny, tmp_path, monkeypatch) -> None:
    params, precision = vectors.params, vectors.facts["dtype"]
    templates = list(params["templates"])
    templates.insert(0, templates.pop(params["train_template_index"]))  # the harness trains with the first
    actual = {}
    for name, run in params["runs"].items():
        world = World(tiny, tmp_path, precision, "task-incremental", vectors.tasks, templates)
        draws = StoredDraws()
        method = method_of_run(run, params, world, draws, {"iterations": params["iterations"]})
        give_reference(method, world, vectors["batch/ref_idx"], params.get("captions", ()))
        for index in range(len(world.classes)):
            with monkeypatch.context() as patch:
                record = Record(method, params["watched_tensors"], patch)
                feed_draws(draws, vectors, name, index, prefix="batch/")
                start = snapshot(method)
                learn_task(method, world, vectors, index)
                found = record.take() | weights_and_scores(method, start, world, vectors)
            actual |= {f"{name}/task{index + 1}/{what}": values for what, values in found.items()}
    vectors.check(actual, dtype=vectors.facts["dtype"])


def learn_task(method, world, vectors, index: int) -> None:
    rows = torch.from_numpy(vectors[f"batch/task{index + 1}_train_idx"])
    labels = torch.from_numpy(vectors[f"batch/task{index + 1}_train_label"]) + world.classes[index][0]
    method.learn(world.task(index, rows, labels))


def weights_and_scores(method, start, world, vectors) -> dict[str, torch.Tensor]:
    """What a run stores after a task: its weights, how far they moved, and the logits of every task's test images."""
    params, saved = vectors.params, snapshot(method)
    names = [str(name) for name in vectors["param_names"]]
    found = {
        "watched_start": torch.stack([start[name] for name in params["watched_tensors"]]),
        "watched_saved": torch.stack([saved[name] for name in params["watched_tensors"]]),
        "param_delta_norm": torch.stack([(saved[name] - start[name]).norm() for name in names]),
    }
    # the authors evaluate with a literal factor, we with exp(logit scale); in double precision they differ in digit 8
    scale = params["temperature"] / world.backbone.logit_scale
    for task, candidates in enumerate(world.classes, start=1):
        rows = torch.from_numpy(vectors[f"eval/task{task}_test_idx"])
        logits = scale * method.logits(world.split(rows).pixels(), candidates)
        correct = logits.argmax(dim=-1) + candidates[0] == world.positions(rows)
        found |= {f"eval_logits_task{task}": logits, f"eval_acc_task{task}": 100 * correct.double().mean()}
    return found


def feed_draws(draws: StoredDraws, vectors, run: str, index: int, prefix: str) -> None:
    """The second pass over the training images, and the random sentences, where the run has them."""
    stored = f"task{index + 1}"
    if "distill" in (vectors.params["runs"][run].get("kd_images") or ""):
        rows, wanted = vectors[f"{prefix}{stored}_train_idx"], vectors[f"{prefix}{stored}_distill_idx"]
        draws.distillation_rows[index] = places_in(rows, wanted)
    if f"{run}/{stored}/random_token_ids" in vectors:
        tokens = vectors.params["random_sentences"]["n_tokens"]
        draws.random_tokens[index] = torch.from_numpy(vectors[f"{run}/{stored}/random_token_ids"]).long()[:, 1 : 1 + tokens]
