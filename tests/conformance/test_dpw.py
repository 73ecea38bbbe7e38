"""DPW against its authors' code: stored starts and orders in; difficulty, steps, statistics, best epoch and all tests out."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from methods.residual_attention.dpw import DPW
from methods.residual_attention.towers import Strength, image_features, text_features
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.shifted_images import Groups, Record, StoredOrders, common_settings, gaussian, scored

TOWERS = ("image", "text")
PARTS = ("prefix", "gate", "bias", "up_w", "up_b")


def settings(params: dict) -> DPW.Settings:
    assert params["drop_last"] and params["threshold"] == 1
    image_bias, text_bias = params["gate_bias_init"]
    return DPW.Settings(
        **common_settings(params), reduced=params["gate_input"] == "slice of the head",
        adapter_rank=params["adapter_rank"], adapter_scale=params["adapter_scale"],
        adapter_dropout=params["adapter_dropout_in_training_runs"], image_bias=image_bias, text_bias=text_bias,
        class_number_constant=params["class_number_constant"], certainty=params["certainty"],
        statistics_include_validation=params["statistics_include_validation"],
    )  # fmt: skip


class Run:
    """The method with the stored run's starts."""

    def __init__(self, vectors, groups: Groups, monkeypatch):
        self.vectors, self.groups, self.monkeypatch = vectors, groups, monkeypatch
        world = groups.world
        self.method = DPW(settings(vectors.params), world.backbone, world.scenario, StoredOrders(vectors))
        if "heads_attribute" in vectors.params:
            monkeypatch.setattr(self.method, "attention_heads", lambda tower: vectors.params["heads_attribute"])
        for tower in TOWERS:
            basis = getattr(self.method, f"{tower}_basis")
            assert tuple(basis.shape) == vectors[f"{tower}_down"].shape
            basis.copy_(torch.from_numpy(vectors[f"{tower}_down"]))
        self.own_starts = self.method.first_prefixes, self.method.first_gates
        self.monkeypatch.setattr(self.method, "first_prefixes", lambda tower: self.stored(f"{tower}_prefix_init"))
        self.monkeypatch.setattr(self.method, "first_up", lambda tower: self.stored(f"{tower}_up_w_init"))

    def stored(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.vectors[name])

    def singular_vectors(self) -> dict[str, torch.Tensor]:
        """Absolute values of our own starts, of those that are stored."""
        first_prefixes, _ = self.own_starts
        return {f"{tower}_prefix_init_abs": first_prefixes(tower).abs() for tower in TOWERS}

    def learn(self, index: int) -> dict[str, object]:
        """Expected arrays of a task."""
        method, place, (task, division) = self.method, f"task{index}", self.groups.task(index)
        difficulties, difficulty = [], method.difficulty
        _, first_gates = self.own_starts
        found: dict[str, object] = {}

        def noted_difficulty(*arguments):
            difficulties.append(difficulty(*arguments))
            return float(self.vectors[f"{place}/difficulty_used"])

        def stored_gates(tower, heads, task):
            if f"{place}/{tower}_gate_init_abs" in self.vectors:
                found[f"{tower}_gate_init_abs"] = first_gates(tower, heads, task).abs()
            return self.stored(f"{place}/{tower}_gate_init")

        with self.monkeypatch.context() as patch:
            patch.setattr(method, "difficulty", noted_difficulty)
            patch.setattr(method, "first_gates", stored_gates)
            patch.setattr(method, "divide", lambda task: division)
            method.grow(task)
            record = Record(method, task, patch)
            for tower in TOWERS:
                assert float(self.vectors[f"{place}/{tower}_bias_init_value"]) == getattr(method.settings, f"{tower}_bias")
            method.learn(task)
        bank = method.banks[index]
        found |= record.arrays() | gaussian(method, index)
        found |= {
            "difficulty": difficulties[0],
            "heads": torch.tensor([additions.gate.shape[1] for additions in (bank.image, bank.text)]),
            "gate_mean": bank.image.mean,
            "gate_var": bank.image.variance,
            "gate_mean_last_epoch": record.after_epochs[-1]["image.mean"],
        }
        for tower in TOWERS:
            for part in PARTS:
                name, ours = f"{tower}_{part}", f"{tower}.{part}"
                found[f"step0_grad_{name}"] = record.first_gradients[ours]
                found[name] = bank.state_dict()[ours]
                found[f"{name}_step2"] = record.after_steps[1][ours]
                found[f"{name}_last_epoch"] = record.after_epochs[-1][ours]
        return {f"{place}/{name}": value for name, value in found.items()}

    def all_learned(self, index: int) -> dict[str, torch.Tensor]:
        """Every test image alone, among all learned classes."""
        method, seen = self.method, self.groups.classes[index][-1] + 1
        scenario, together = method.scenario, method.settings
        method.scenario = replace(scenario, kind="class-incremental")
        method.settings = replace(together, test_batches="single")
        found = {
            f"{name}_logits_class_incremental": method.logits(pixels, range(seen)) for name, pixels, _ in self.groups.tests()
        }
        method.scenario, method.settings = scenario, together
        return found

    @torch.no_grad()
    def units(self) -> dict[str, torch.Tensor]:
        """Both towers at given weights."""
        clip, found = self.method.backbone.clip, {}
        for name in sorted({name.split("/")[0] for name in self.vectors.arrays if name.startswith("unit")}):
            task = int(self.vectors[f"{name}/task"])
            pixels = self.groups.world.unlabelled(self.vectors[f"{name}/rows"]).pixels()
            weights = torch.from_numpy(self.vectors[f"{name}/weights"]).to(pixels.dtype)
            bank, tokens = self.method.banks[task], self.method.tokens(self.groups.classes[task])
            of_texts = Strength(weights.mean().expand(len(tokens)), weights.mean())
            found[f"{name}/image_features"] = image_features(clip.visual, pixels, bank.image, Strength(weights, weights.mean()))
            found[f"{name}/text_features"] = text_features(clip, tokens, bank.text, of_texts)
        return found

    def dropout(self) -> dict[str, torch.Tensor]:
        """One pass of training with the stored masks."""
        method, vectors, task = self.method, self.vectors, int(self.vectors["dropout/task"])
        bank = method.banks[task]
        for additions, tower in ((bank.image, "image"), (bank.text, "text")):
            masks = self.stored(f"dropout/mask_{tower}")

            def masked(index, narrow, masks=masks):
                assert masks.shape[-1] == narrow.shape[-1]
                return narrow * masks[index][:, : narrow.shape[1]] / (1 - vectors.params["adapter_dropout"])

            self.monkeypatch.setattr(additions, "dropped", masked)
        pixels = self.groups.world.unlabelled(vectors["dropout/rows"]).pixels()
        bank.zero_grad()
        logits = method.training_logits(bank, pixels, method.tokens(self.groups.classes[task]))
        loss = F.cross_entropy(logits, self.stored("dropout/labels"))
        loss.backward()
        found = {"dropout/loss": loss}
        for additions, tower in ((bank.image, "image"), (bank.text, "text")):
            found |= {f"dropout/grad_{tower}_up_w": additions.up_w.grad, f"dropout/grad_{tower}_up_b": additions.up_b.grad}
        return found


@PRECISIONS
@pytest.mark.vectors("dpw", "*")
def test_dpw(vectors, tiny, tmp_path, monkeypatch, precision):
    groups = Groups(vectors, tiny, tmp_path, precision)
    run = Run(vectors, groups, monkeypatch)
    actual = run.singular_vectors()
    for index in range(groups.n_tasks):
        actual |= run.learn(index)
        found = scored(run.method, groups) | run.all_learned(index)
        actual |= {f"after{index}/{name}": values for name, values in found.items()}
    actual |= run.units() | run.dropout()
    vectors.check(actual, dtype=precision)
