"""L2P, DualPrompt and CODA-Prompt against runs of their PyTorch code on the fixture's image tower, number by number."""

import pytest
import torch

from bench.system.randomness import Draws
from methods.visual_prompts.coda_prompt import CODAPrompt
from methods.visual_prompts.dualprompt import DualPrompt
from methods.visual_prompts.l2p import L2P
from tests.conformance.image_streams import world_of


class StoredDraws(Draws):
    """The stored batch order is the data set's; Gram-Schmidt is fed the stored draws."""

    def __init__(self, vectors):
        super().__init__("conformance", "stored", 0)
        self.vectors = vectors

    def permutation(self, n, *purpose):
        assert purpose[0] == "batch order"
        return torch.arange(n)

    def normal(self, shape, *purpose):
        name, task, number = purpose
        layer = self.vectors["hp_layers"][number]
        letter = {"components": "p", "keys": "k", "attention": "a"}[name]
        draws = torch.from_numpy(self.vectors[f"task{task}/gs_draws/{letter}_{layer}"])
        assert draws.shape == tuple(shape)
        return draws


class Steps:
    """What happens in each step of one task, noted from outside."""

    def __init__(self, method, patch):
        self.method = method
        self.rows: dict[str, list] = {}
        self.gradients, self.after, self.first_logits, self.first_prefixes = {}, {}, None, {}
        for name in ("cross_entropy", "attraction", "loss", "select", "clip_gradients"):
            if hasattr(method, name):
                self._watch(patch, name)
        step, head = torch.optim.Adam.step, method.head.forward

        def watched_step(optimiser, *rest):
            self.rows.setdefault("lr", []).append(torch.tensor(optimiser.param_groups[0]["lr"], dtype=torch.float64))
            if not self.gradients:
                self.gradients = {name: weights.grad.clone() for name, weights in named(method).items()}
            step(optimiser, *rest)
            if not self.after:
                self.after = {name: weights.detach().clone() for name, weights in named(method).items()}

        def watched_head(pooled):
            logits = head(pooled)
            self.first_logits = logits.detach() if self.first_logits is None else self.first_logits
            return logits

        patch.setattr(torch.optim.Adam, "step", watched_step)
        patch.setattr(method.head, "forward", watched_head)

    def _watch(self, patch, name: str) -> None:
        original = getattr(self.method, name)

        def watched(*arguments):
            value = original(*arguments)
            if value is not None:
                self.rows.setdefault(name, []).append(value.detach().clone())
            return value

        patch.setattr(self.method, name, watched)

    def take(self) -> dict[str, torch.Tensor]:
        return {name: torch.stack(values) for name, values in self.rows.items()}


def named(method) -> dict[str, torch.nn.Parameter]:
    return {name: weights for name, weights in method.named_parameters() if weights.requires_grad}


def build(method_class, settings, vectors, tiny, folder, head: str):
    """The method on a stream of the stored tasks, and its world; the array `head` has a row for each class of the stored run."""
    assert vectors.params.get("full_batch", True)  # the settings are those of one step for every pass over a task
    world = world_of(vectors, tiny, folder, vectors.facts["dtype"], len(vectors[head]))
    method = method_class(settings, world.backbone, world.scenario, StoredDraws(vectors))
    return method.to(world.backbone.dtype).eval(), world


def learn(method, world, vectors, index: int, monkeypatch) -> Steps:
    rows, labels = (torch.from_numpy(vectors[f"task{index}/train_{what}"]) for what in ("index", "label"))
    with monkeypatch.context() as patch:
        steps = Steps(method, patch)
        method.learn(world.task(index, rows, labels))
    return steps


def images_to_score(world, vectors) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and queries of the test images."""
    pixels = world.unlabelled(vectors["test_index"]).pixels()
    return pixels, world.backbone.pool_images(pixels)


def queries(world) -> torch.Tensor:
    """Of all images of the fixture, also of classes that are not in the stream."""
    return world.backbone.pool_images(world.unlabelled().pixels())


# -- L2P and DualPrompt, both from the ports' training loop -----------------------------------------------------


@pytest.mark.vectors("l2p")
def test_l2p(vectors, tiny, tmp_path, monkeypatch):
    settings = L2P.Settings(
        pool_size=int(vectors["hp_size"]), length=int(vectors["hp_length"]), top_k=int(vectors["hp_top_k"]),
        own_prompts=bool(vectors["hp_use_prompt_mask"]), copy_prompts=bool(vectors["hp_shared_prompt_pool"]),
        **common_settings(vectors),
    )  # fmt: skip
    names = {"pool": "prompt.prompt", "keys": "prompt.prompt_key", "head.weight": "head.weight", "head.bias": "head.bias"}
    method, world = build(L2P, settings, vectors, tiny, tmp_path, "init/head.weight")
    visual, inserted = world.backbone.clip.visual, settings.top_k * settings.length
    first, patches = visual.positional_embedding[:1], visual.positional_embedding[1:]
    actual = {"pos_embed_extended": torch.cat([first.expand(1 + inserted, -1), patches]).unsqueeze(0)}
    vectors.check(actual | port_run(method, world, vectors, names, monkeypatch), dtype=vectors.facts["dtype"])


@pytest.mark.vectors("dualprompt")
def test_dualprompt(vectors, tiny, tmp_path, monkeypatch):
    params = vectors.params
    settings = DualPrompt.Settings(
        general_layers=tuple(params["g_layers"]), general_length=int(vectors["hp_g_len"]),
        expert_layers=tuple(params["e_layers"]), expert_length=int(vectors["hp_length"]), pool_size=int(vectors["hp_size"]),
        layout="port" if params["prompt_layout"].startswith("port") else "correct",
        copy_prompts=params["copy_previous_e_prompt"], **common_settings(vectors),
    )  # fmt: skip
    names = {
        "general": "g_prompt", "expert": "e_prompt.prompt", "keys": "e_prompt.prompt_key",
        "head.weight": "head.weight", "head.bias": "head.bias",
    }  # fmt: skip
    method, world = build(DualPrompt, settings, vectors, tiny, tmp_path, "init/head.weight")
    vectors.check(port_run(method, world, vectors, names, monkeypatch), dtype=vectors.facts["dtype"])


def common_settings(vectors) -> dict:
    return {
        "pull": float(vectors["hp_pull"]), "batch_vote": bool(vectors["hp_batchwise"]), "mirrored_view": False,
        "learning_rate": float(vectors["hp_lr"]), "epochs": int(vectors["hp_epochs"]), "batch_size": 10**6,
    }  # fmt: skip


def port_run(method, world, vectors, names: dict[str, str], monkeypatch) -> dict[str, torch.Tensor]:
    """Both tasks from the stored start; `names` maps our parameters to theirs, whose heads are split into two axes."""
    stored = {ours: vectors[f"init/{theirs}"] for ours, theirs in names.items()}
    for ours, weights in named(method).items():
        weights.data = torch.from_numpy(stored[ours]).reshape(weights.shape).to(weights)

    def as_stored(values) -> dict[str, torch.Tensor]:
        return {names[ours]: values[ours].reshape(stored[ours].shape).detach().clone() for ours in names}

    monkeypatch.setattr(type(method), "clip_norm", vectors.params["grad_clip_norm"])
    pixels, query = images_to_score(world, vectors)
    actual = {"query": queries(world)}
    for index in range(len(world.classes)):
        method.start_task(world.task(index, torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)))
        found = {f"start/{name}": values for name, values in as_stored(named(method)).items()}
        steps = learn(method, world, vectors, index, monkeypatch)
        found |= {f"step1_clipped_grad/{name}": values for name, values in as_stored(steps.gradients).items()}
        found |= {f"after_step1/{name}": values for name, values in as_stored(steps.after).items()}
        found |= {f"end/{name}": values for name, values in as_stored(named(method)).items()}
        rows = steps.take()
        chosen = rows["select"]
        found |= {
            "ce": rows["cross_entropy"],
            "reduce_sim": rows["attraction"],
            "loss": rows["loss"],
            "grad_norm": rows["clip_gradients"],
            "train_idx_per_step": chosen if chosen.dim() == 3 else chosen.unsqueeze(-1),
            "train_logits_step1": steps.first_logits,
        }
        found |= scores(method, pixels, query)
        actual |= {f"task{index}/{name}": values for name, values in found.items()}
    return actual


@torch.no_grad()
def scores(method, pixels, query) -> dict[str, torch.Tensor]:
    """Test logits of all classes, learned or not, as the ports compute them: one batch, and one image at a time."""
    every = range(len(method.learned))
    learned = method.learned.clone()
    method.learned[:] = True
    similarity = method.similarity(query)
    together = method.select(similarity, None)
    alone = torch.cat([method.select(row.unsqueeze(0), None) for row in similarity])
    found = {
        "test_similarity": similarity,
        "test_idx": together.reshape(len(query), -1),
        "test_idx_single": alone.reshape(len(query), -1),
        "test_logits": method.logits(pixels, every),
        "test_logits_single": torch.cat([method.logits(image.unsqueeze(0), every) for image in pixels]),
    }
    method.learned = learned
    return found


# -- CODA-Prompt ------------------------------------------------------------------------------------------------


@pytest.mark.vectors("coda-prompt")
def test_coda_prompt(vectors, tiny, tmp_path, monkeypatch):
    settings = CODAPrompt.Settings(
        layers=tuple(int(layer) for layer in vectors["hp_layers"]), components=int(vectors["hp_pool"]),
        length=int(vectors["hp_length"]), orthogonality=float(vectors["hp_ortho_mu"]), learning_rate=float(vectors["hp_lr"]),
        epochs=int(vectors["hp_epochs_run"]), schedule_epochs=int(vectors["hp_schedule_K"]), batch_size=10**6,
        mirrored_view=False,
    )  # fmt: skip
    method, world = build(CODAPrompt, settings, vectors, tiny, tmp_path, "init/last.weight")
    for ours, theirs in (("weight", "last.weight"), ("bias", "last.bias")):
        getattr(method.head, ours).data = torch.from_numpy(vectors[f"init/{theirs}"]).to(world.backbone.dtype)
    pixels, _ = images_to_score(world, vectors)
    actual = {"query": queries(world)}
    for index, classes in enumerate(world.classes):
        rows, labels = (torch.from_numpy(vectors[f"task{index}/train_{what}"]) for what in ("index", "label"))
        task = world.task(index, rows, labels)
        method.start_task(task)
        found = {f"start/{name}": values.detach().clone() for name, values in tensors(method, named(method)).items()}
        found |= first_step(method, task, settings)
        steps = learn(method, world, vectors, index, monkeypatch)
        noted = steps.take()
        seen = steps.first_logits[:, : classes[-1] + 1].clone()
        seen[:, : classes[0]] = -torch.inf
        found |= {"loss": noted["loss"], "lr": noted["lr"], "step1/logits": seen}
        found |= {f"step1/grad/{name}": values for name, values in tensors(method, steps.gradients).items()}
        found |= {f"end/{name}": values.detach().clone() for name, values in tensors(method, named(method)).items()}
        found["test_logits"] = method.logits(pixels, range(classes[-1] + 1))
        actual |= {f"task{index}/{name}": values for name, values in found.items()}
    vectors.check(actual, dtype=vectors.facts["dtype"])


def tensors(method, values) -> dict[str, torch.Tensor]:
    """Parameters or their gradients under the names of the authors' code, layer by layer."""
    found = {"last.weight": values["head.weight"], "last.bias": values["head.bias"]}
    for letter, name in (("p", "components"), ("k", "keys"), ("a", "attention")):
        for number, layer in enumerate(method.settings.layers):
            found[f"e_{letter}_{layer}"] = values[name][number]
    return found


@torch.no_grad()
def first_step(method, task, settings, images: int = 4) -> dict[str, torch.Tensor]:
    """Prefixes of the first training images, and the penalty, before the first update."""
    query = task.train.features(layer="pooled")
    found = {}
    for number, layer in enumerate(settings.layers):
        keys, values = method.prefix(number, query, task.index)
        found |= {f"step1/prompt_k_{layer}": keys[:images], f"step1/prompt_v_{layer}": values[:images]}
        found[f"step1/ortho_loss_{layer}"] = settings.orthogonality * method.penalty(number, task.index)
    return found
