"""DualPrompt: prefixes for all tasks in the first blocks, prefixes for one task in the next, told apart by a key."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from bench import BenchError, Range, Task, TestBatches, setting
from bench.clip.image_tower import blocks, image_tokens, pool_image
from methods.visual_prompts.prefix_attention import block_with_prefix
from methods.visual_prompts.prompted_vision import PromptedVision, PromptedVisionSettings, check_layers

PORT = "PyTorch port (JH-LEE-KR/dualprompt-pytorch)"
PAPER = "authors' JAX code"


@dataclass(frozen=True)
class DualPromptSettings(PromptedVisionSettings):
    general_layers: tuple[int, ...] = setting((0, 1), "blocks that get the prefixes shared by all tasks", PORT)
    general_length: int = setting(5, "Lg: keys and as many values in each of them", PORT, search=Range(2, 10))
    expert_layers: tuple[int, ...] = setting((2, 3, 4), "blocks that get the prefixes of one task", PORT)
    expert_length: int = setting(5, "Le: keys and as many values in each of them", PORT, search=Range(2, 10))
    pool_size: int = setting(0, "M: prefixes of tasks in the pool; 0: as many as there are tasks", "harness")
    pull: float = setting(
        1.0, "lambda: weight of the similarity between queries and the task's key", PAPER, search=Range(0.03, 3.0, log=True)
    )
    layout: Literal["correct", "port"] = setting(
        "correct", "port: its unpermuted reshape, which mixes the images of a batch", "harness"
    )
    batch_vote: bool = setting(
        False, "all test images of a batch get the prefixes that most of them chose, as in the port", "harness"
    )
    copy_prompts: bool = setting(True, "start a task's prefixes from the previous task's", PORT)
    learning_rate: float = setting(0.015, "rate of Adam: 0.03 * batch_size / 256", PORT, search=Range(3e-4, 0.1, log=True))
    epochs: int = setting(5, "passes over the task's images", PORT)

    def __post_init__(self):
        super().__post_init__()
        both = set(self.general_layers) & set(self.expert_layers)
        if both:
            raise BenchError(f"block {min(both)} is in general_layers and in expert_layers: a block gets one kind of prefix")


class DualPrompt(PromptedVision):
    """DualPrompt: general prefixes shared by all tasks and expert prefixes of one task each, in a frozen tower.

    Paper: "DualPrompt: Complementary Prompting for Rehearsal-free Continual Learning", Z. Wang, Z. Zhang, S. Ebrahimi,
    R. Sun, H. Zhang, C.-Y. Lee, X. Ren, G. Su, V. Perot, J. Dy, T. Pfister, ECCV 2022, arXiv 2204.04799.

    Trained: G (layers, 2, Lg, D), E (layers, 2, M, Le, D), keys K (M, D), a linear head W, b. Frozen: the image tower. In
    the axis of length 2, 0 is the prefix of the attention's keys, 1 that of its values. q (b, D) is the query.

        training on task t: e_b = t;      test: e_b = argmax_m cos(q_b, K_m)
        block in general_layers: prefixes G[layer];   in expert_layers: E[layer, :, e_b]  (visual_prompts/prefix_attention.py)
        logits = W ln_post(class token) + b
        loss = CE among the task's classes - lambda (1 / B) sum_b cos(q_b, K_t)

    Before task t > 0, E[:, :, t] is copied from t - 1. Adam, constant rate, gradients clipped to norm 1, a new optimiser per
    task; the prefixes of earlier tasks get no gradient and stay as they are, the general ones are trained by all tasks.

    Deviations from the port, which is followed otherwise: it reshapes the gathered prefixes without permuting, so that images
    get keys as values and prefixes of their neighbours; the authors' own JAX code does not, nor does this, unless
    layout="port". Selection at test time is per image ("batch_vote" does the majority vote). Prediction is among the
    classes asked for; crops are taken from the square view of an image. With more tasks than the pool holds, the port drops the
    mask silently; here the pool has as many prefixes as there are tasks.

    Raises BenchError for layers that the tower does not have, and for a pool smaller than the number of tasks.
    """

    Settings = DualPromptSettings
    settings: DualPromptSettings
    recipes = {
        "*": {"crop_scale": 0.05},  # the port's augmentation
        "imagenet-r*": {"epochs": 50, "expert_length": 20, "learning_rate": 0.0025},
        "mini*": {
            "batch_size": 32, "epochs": 12, "expert_layers": (2, 3), "learning_rate": 5e-3,
            "crop_scale": 1.0, "mirrored_view": False,
        },
        # nine data sets, with more images each: fewer passes keep a stream within minutes
        "mini-mtil*": {"epochs": 5},
        "mini-xtail*": {"epochs": 5},
    }  # fmt: skip
    quick = {"epochs": 1}
    paper = (
        '"DualPrompt: Complementary Prompting for Rehearsal-free Continual Learning", Wang et al., ECCV 2022, arXiv 2204.04799'
    )
    continues_as_one_run = False  # head and prefixes are drawn for the whole stream at once
    trains = "general and expert prefixes, keys and a linear head; the image tower is frozen, text is not used"
    conformance = "checked: query, selection, losses, gradients, parameters of two tasks, logits; both layouts"
    clip_norm = 1.0

    def prepare(self) -> None:
        super().prepare()
        settings, width = self.settings, self.backbone.pooled_width
        every = (*settings.general_layers, *settings.expert_layers)
        check_layers(every, blocks(self.backbone.clip.visual), "prefixes in")
        size = settings.pool_size or self.scenario.n_tasks
        if size < self.scenario.n_tasks:
            raise BenchError(f"pool_size={size}: the stream has {self.scenario.n_tasks} tasks, and each needs its own prefixes")

        def uniform(purpose: str, *shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(2 * torch.rand(shape, generator=self.draws.generator(purpose)) - 1)

        self.general = uniform("general prefixes", len(settings.general_layers), 2, settings.general_length, width)
        self.expert = uniform("expert prefixes", len(settings.expert_layers), 2, size, settings.expert_length, width)
        self.keys = uniform("keys", size, width)

    @property
    def test_batches(self) -> TestBatches | None:
        mixes = self.settings.batch_vote or self.settings.layout == "port"
        return TestBatches("task", self.settings.batch_size, shuffled=False) if mixes else None

    def start_task(self, task: Task) -> None:
        if self.settings.copy_prompts and task.index > 0:
            with torch.no_grad():
                self.expert[:, :, task.index] = self.expert[:, :, task.index - 1]

    def similarity(self, query: torch.Tensor) -> torch.Tensor:
        """(b, M) cosines of queries and keys."""
        return F.normalize(query, dim=-1) @ F.normalize(self.keys, dim=-1).T

    def select(self, similarity: torch.Tensor, task: int | None) -> torch.Tensor:
        """(b,) the expert prefixes of each image; `task` is None at test time."""
        if task is not None:
            return torch.full((len(similarity),), task, device=similarity.device)
        chosen = similarity.argmax(dim=-1)
        return chosen.mode().values.expand(len(chosen)) if self.settings.batch_vote else chosen

    def pooled(self, pixels: torch.Tensor, query: torch.Tensor, task: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        similarity = self.similarity(query)
        chosen = self.select(similarity, task)
        return self.read_class_token(pixels, chosen), -self.settings.pull * self.attraction(similarity, chosen)

    def attraction(self, similarity: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """(1 / B) sum_b cos(q_b, K_{e_b})."""
        return similarity.gather(1, chosen.unsqueeze(1)).sum() / len(similarity)

    def read_class_token(self, pixels: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """(b, D): ln_post of the class token that has passed the prefixed blocks."""
        visual = self.backbone.clip.visual
        prefixes = {layer: pair.unsqueeze(1) for layer, pair in zip(self.settings.general_layers, self.general)}
        prefixes |= dict(zip(self.settings.expert_layers, self._experts(chosen)))
        x = image_tokens(visual, pixels)
        for layer, block in enumerate(blocks(visual)):
            if layer in prefixes:
                keys, values = prefixes[layer]  # (b or 1, length, D) each
                x = block_with_prefix(block, x, keys, values)
            else:
                x = block(x)
        return pool_image(visual, x)

    def _experts(self, chosen: torch.Tensor) -> torch.Tensor:
        """(layers, 2, b, Le, D): the chosen prefixes of each image."""
        gathered = self.expert[:, :, chosen]
        if self.settings.layout == "correct":
            return gathered
        layers, pair, b, length, width = gathered.shape
        return gathered.reshape(layers, b, pair, length, width).transpose(1, 2)  # the port takes this as batch-first
