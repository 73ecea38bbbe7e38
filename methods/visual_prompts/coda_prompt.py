"""CODA-Prompt: prefixes as sums of prompt components, weighted by attention between the image's feature and their keys."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import BenchError, Choices, Range, Task, setting
from bench.clip.image_tower import blocks, image_tokens, pool_image
from methods.visual_prompts.prefix_attention import block_with_prefix
from methods.visual_prompts.prompted_vision import PromptedVision, PromptedVisionSettings, check_layers

AUTHORS = "authors' code"
EPSILON = 1e-12


@dataclass(frozen=True)
class CODAPromptSettings(PromptedVisionSettings):
    layers: tuple[int, ...] = setting((0, 1, 2, 3, 4), "blocks that get prefixes", AUTHORS)
    components: int = setting(100, "M: prompt components of a layer; every task adds M // tasks of them", AUTHORS)
    length: int = setting(8, "L: half of it keys, half of it values", AUTHORS, search=Choices(4, 8, 16))
    orthogonality: float = setting(
        0.0,
        "mu: weight of the orthogonality penalty; 0.1 in the paper, 0 in the released code",
        AUTHORS,
        search=Range(0.0, 1.0, step=0.1),
    )
    schedule_epochs: int = setting(0, "epochs over which the rate falls; 0: `epochs`", "harness")

    def __post_init__(self):
        super().__post_init__()
        if self.length < 2 or self.length % 2:
            raise BenchError(f"length={self.length}: an even number is needed, half keys and half values")


class CODAPrompt(PromptedVision):
    """CODA-Prompt: a decomposed, attention-weighted prompt as prefix in the first blocks of a frozen tower.

    Paper: "CODA-Prompt: COntinual Decomposed Attention-based Prompting for Rehearsal-Free Continual Learning", J. S. Smith,
    L. Karlinsky, V. Gutta, P. Cascante-Bonilla, D. Kim, A. Arbelle, R. Panda, R. Feris, Z. Kira, CVPR 2023, arXiv 2211.13218.

    Trained, for each prompted block: components P (M, L, D), keys K (M, D), attention vectors A (M, D); a linear head W, b.
    Frozen: the image tower. With T tasks, task t owns the rows s .. f - 1, s = t (M // T), f = (t + 1) (M // T). q (b, D) is
    the query.

        alpha_bm = cos(q_b * A_m, K_m)                                    m = 0 .. f - 1; rows before s get no gradient
        p_b = sum_m alpha_bm P_m       (L, D): first half keys, second half values     (visual_prompts/prefix_attention.py)
        logits = W ln_post(class token) + b
        loss = CE among the task's classes + mu sum over layers [O(K) + O(A) + O(P)],   O(X) = mean over entries of (X X^T - I)^2

    Before a task its new rows are drawn from a normal distribution, made orthogonal to all earlier rows and scaled to unit
    length; rows of later tasks are zero. Adam, a new one per task; the rate of epoch e is
    lr cos(99 pi max(e - 1, 0) / (200 (K - 1))), K = schedule_epochs: one epoch late, as in the released code.

    Exact speed-up: cos(q * A, K) = q (A * K^)^T / sqrt(q^2 (A^2)^T), which needs no (b, M, D) tensor.

    Deviations from the authors' code: crops are taken from the square view of an image, the view is drawn for half of them.

    Raises BenchError for layers that the tower does not have, and if there are more tasks than components.
    """

    Settings = CODAPromptSettings
    settings: CODAPromptSettings
    recipes = {
        "*": {"crop_scale": 0.08},  # the authors' augmentation
        "imagenet-r*": {"epochs": 50},
        "mini*": {
            "crop_scale": 1.0,
            "layers": (0, 1, 2),
            "components": 60,
            "batch_size": 32,
            "epochs": 12,
            "mirrored_view": False,
            "learning_rate": 5e-3,
        },
        # nine data sets, with more images each: fewer passes keep a stream within minutes
        "mini-mtil*": {"epochs": 5},
        "mini-xtail*": {"epochs": 5},
    }
    quick = {"epochs": 1}
    paper = (
        '"CODA-Prompt: COntinual Decomposed Attention-based Prompting for Rehearsal-Free Continual Learning", '
        "Smith et al., CVPR 2023, arXiv 2211.13218"
    )
    continues_as_one_run = False
    cannot_continue = "its prompt components are shared out among the tasks of its stream, and none is left"
    trains = "prompt components, their keys and attention vectors, and a linear head; the image tower is frozen, text is not used"
    conformance = "checked: orthogonal start from stored draws, prefixes, penalty, losses, rates, gradients, parameters, logits"
    filled: torch.Tensor

    def prepare(self) -> None:
        super().prepare()
        settings, width = self.settings, self.backbone.pooled_width
        check_layers(settings.layers, blocks(self.backbone.clip.visual), "prefixes in")
        if settings.components < self.scenario.n_tasks:
            raise BenchError(
                f"components={settings.components}: at least one for each of the {self.scenario.n_tasks} tasks is needed"
            )
        self.per_task = settings.components // self.scenario.n_tasks
        n = len(settings.layers)
        self.components = torch.nn.Parameter(torch.zeros(n, settings.components, settings.length, width))  # P
        self.keys = torch.nn.Parameter(torch.zeros(n, settings.components, width))  # K
        self.attention = torch.nn.Parameter(torch.zeros(n, settings.components, width))  # A
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))  # f: rows that tasks so far have filled

    def initialise_head(self) -> None:
        """torch's default."""

    @torch.no_grad()
    def start_task(self, task: Task) -> None:
        first, last = task.index * self.per_task, (task.index + 1) * self.per_task
        for layer in range(len(self.settings.layers)):
            for name in ("components", "keys", "attention"):
                rows = getattr(self, name).data[layer].flatten(1)  # (M, .), a view
                draws = self.draws.normal((last - first, rows.shape[1]), name, task.index, layer).to(rows)
                rows[first:last] = orthogonal_rows(rows[:first], draws)
        self.filled.fill_(last)

    def prefix(self, layer: int, query: torch.Tensor, task: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Prefixes (b, L / 2, D) of keys and values, for the prompted block number `layer`."""
        components, keys, attention = self._rows(layer, task)
        unit_keys = keys / keys.norm(dim=-1, keepdim=True).clamp_min(EPSILON)
        lengths = (query.square() @ attention.square().T).clamp_min(EPSILON**2).sqrt()  # (b, f): |q_b * A_m|
        alpha = query @ (attention * unit_keys).T / lengths
        prompt = torch.einsum("bm,mld->bld", alpha, components)
        keys, values = prompt.chunk(2, dim=1)
        return keys, values

    def penalty(self, layer: int, task: int) -> torch.Tensor:
        """O(K) + O(A) + O(P) of a prompted block."""
        components, keys, attention = (squared_off_identity(part.flatten(1)) for part in self._rows(layer, task))
        return components + keys + attention

    def _rows(self, layer: int, task: int | None) -> list[torch.Tensor]:
        """P, K, A up to the last filled row; while task t is learned, the rows before its own are detached."""
        last = int(self.filled) if task is None else (task + 1) * self.per_task  # training does not wait for the number
        parts = [part[layer, :last] for part in (self.components, self.keys, self.attention)]
        if task is None:
            return parts
        first = task * self.per_task
        return [torch.cat([part[:first].detach(), part[first:]]) for part in parts]

    def pooled(self, pixels: torch.Tensor, query: torch.Tensor, task: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        visual = self.backbone.clip.visual
        place = {layer: number for number, layer in enumerate(self.settings.layers)}
        x = image_tokens(visual, pixels)
        for layer, block in enumerate(blocks(visual)):
            x = block_with_prefix(block, x, *self.prefix(place[layer], query, task)) if layer in place else block(x)
        extra = x.new_zeros(())
        if task is not None and self.settings.orthogonality:
            penalties = (self.penalty(number, task) for number in place.values())
            extra = self.settings.orthogonality * sum(penalties, start=extra)
        return pool_image(visual, x), extra

    def rate(self, epoch: int) -> float:
        last = (self.settings.schedule_epochs or self.settings.epochs) - 1
        if last < 1:
            return self.settings.learning_rate
        return self.settings.learning_rate * math.cos(99 * math.pi * max(epoch - 1, 0) / (200 * last))


def orthogonal_rows(before: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Classical Gram-Schmidt: each draw minus its projections on all rows before it (n, d), at unit length at the end.

    The new rows are projected on while they still have their own length; rows that are given are left as they are.

    >>> orthogonal_rows(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 4.0]])).tolist()
    [[0.0, 1.0]]
    """
    rows = list(before)
    for draw in draws:
        rows.append(draw - sum(((draw @ row) / (row @ row) * row for row in rows), torch.zeros_like(draw)))
    return F.normalize(torch.stack(rows[len(before) :]), dim=-1)


def squared_off_identity(rows: torch.Tensor) -> torch.Tensor:
    """O(X): mean over all entries of (X X^T - I)^2.

    >>> float(squared_off_identity(torch.tensor([[1.0, 0.0], [1.0, 0.0]])))
    0.5
    """
    return (rows @ rows.T - torch.eye(len(rows), device=rows.device, dtype=rows.dtype)).square().mean()
