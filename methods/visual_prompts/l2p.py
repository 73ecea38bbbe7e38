"""L2P: a pool of prompts in front of the patches, chosen by the image's own feature."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import BenchError, Range, Task, TestBatches, setting
from bench.clip.image_tower import blocks, image_tokens
from bench.clip.tower_types import vision_transformer
from methods.visual_prompts.prompted_vision import PromptedVision, PromptedVisionSettings

PORT = "PyTorch port (JH-LEE-KR/l2p-pytorch)"


@dataclass(frozen=True)
class L2PSettings(PromptedVisionSettings):
    pool_size: int = setting(10, "M: prompts in the pool", PORT)
    length: int = setting(5, "L: tokens of a prompt", PORT, search=Range(2, 10))
    top_k: int = setting(5, "N: prompts that an image gets", PORT, search=Range(1, 10))
    pull: float = setting(
        0.1, "lambda: weight of the similarity between queries and the keys they chose", PORT, search=Range(0.01, 1.0, log=True)
    )
    batch_vote: bool = setting(False, "all images of a batch get the prompts that most of them chose, as in the port", "harness")
    own_prompts: bool = setting(False, "while task t is learned, use prompts tN .. (t+1)N - 1 only (5-datasets)", PORT)
    copy_prompts: bool = setting(False, "start these from the previous task's", PORT)
    learning_rate: float = setting(0.015, "rate of Adam: 0.03 * batch_size / 256", PORT, search=Range(3e-4, 0.1, log=True))
    epochs: int = setting(5, "passes over the task's images", PORT)

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.top_k <= self.pool_size:
            raise BenchError(f"top_k={self.top_k}: choose between 1 and pool_size={self.pool_size} prompts per image")


class L2P(PromptedVision):
    """L2P (Learning to Prompt): prompts from a pool, selected by key, before the patches of a frozen tower.

    Paper: "Learning to Prompt for Continual Learning", Z. Wang, Z. Zhang, C.-Y. Lee, H. Zhang, R. Sun, X. Ren, G. Su,
    V. Perot, J. Dy, T. Pfister, CVPR 2022, arXiv 2112.08654.

    Trained: pool P (M, L, D), keys K (M, D), a linear head W, b. Frozen: the image tower. q (b, D) is the query.

        s_bm = cos(q_b, K_m);   S_b = the N largest                         per image, or ("batch_vote") by majority
        tokens = [class token; P_m for m in S_b; patches]                   N L tokens more, before ln_pre, each with the
                                                                            class token's positional embedding
        o_b = mean over the prompt positions of ln_post(last block),   logits = W o_b + b
        loss = CE among the task's classes - lambda (1 / B) sum_b sum_{m in S_b} s_bm

    The last term reaches the keys only. Adam, constant rate, gradients clipped to norm 1, a new optimiser per task.

    Deviations from the port, which is followed otherwise: selection is per image by default, since a vote lets test images
    help each other ("batch_vote" does it as the port; its test batches are then single-task batches of `batch_size`);
    prediction is among the classes asked for instead of all, also those not learned; crops are taken from the square view of
    an image, and half of the images are mirrored. The backbone is CLIP's image tower, the paper's an ImageNet-21k ViT-B/16.

    Raises BenchError if top_k exceeds the pool.
    """

    Settings = L2PSettings
    settings: L2PSettings
    recipes = {
        "*": {"crop_scale": 0.05},  # the port's augmentation
        "imagenet-r*": {"epochs": 10},
        "mini*": {"crop_scale": 1.0, "batch_size": 32, "epochs": 4, "mirrored_view": False, "learning_rate": 5e-3},
        # nine data sets, with more images each: fewer passes keep a stream within minutes
        "mini-mtil*": {"epochs": 3},
        "mini-xtail*": {"epochs": 3},
    }
    quick = {"epochs": 1}
    paper = '"Learning to Prompt for Continual Learning", Wang et al., CVPR 2022, arXiv 2112.08654'
    continues_as_one_run = False  # the head is drawn for all classes of the stream at once
    trains = "prompt pool, keys and a linear head; the image tower is frozen, text is not used"
    conformance = "checked: query, selection and vote, losses, gradients, parameters of two tasks, batch and single-image logits"
    clip_norm = 1.0

    def prepare(self) -> None:
        super().prepare()
        settings, width = self.settings, self.backbone.pooled_width
        pool = torch.rand((settings.pool_size, settings.length, width), generator=self.draws.generator("prompt pool"))
        keys = torch.rand((settings.pool_size, width), generator=self.draws.generator("prompt keys"))
        self.pool = torch.nn.Parameter(2 * pool - 1)  # (M, L, D), uniform in (-1, 1)
        self.keys = torch.nn.Parameter(2 * keys - 1)  # (M, D)

    @property
    def test_batches(self) -> TestBatches | None:
        return TestBatches("task", self.settings.batch_size, shuffled=False) if self.settings.batch_vote else None

    def start_task(self, task: Task) -> None:
        own, before = self._own(task.index), self._own(task.index - 1)
        if self.settings.copy_prompts and own is not None and before is not None:
            with torch.no_grad():
                self.pool[own] = self.pool[before]

    def _own(self, task: int) -> list[int] | None:
        """The prompts of a task, if every task has its own and the pool is large enough."""
        first = task * self.settings.top_k
        if not self.settings.own_prompts or task < 0 or first + self.settings.top_k > self.settings.pool_size:
            return None
        return list(range(first, first + self.settings.top_k))

    def similarity(self, query: torch.Tensor) -> torch.Tensor:
        """(b, M) cosines of queries and keys."""
        return F.normalize(query, dim=-1) @ F.normalize(self.keys, dim=-1).T

    def select(self, similarity: torch.Tensor, task: int | None) -> torch.Tensor:
        """(b, N) the prompts of each image; `task` is None at test time."""
        own = None if task is None else self._own(task)
        if own is not None:
            return torch.tensor(own, device=similarity.device).expand(len(similarity), -1)
        chosen = similarity.topk(self.settings.top_k, dim=-1).indices
        return self._vote(chosen) if self.settings.batch_vote else chosen

    def _vote(self, chosen: torch.Tensor) -> torch.Tensor:
        """The N prompts that occur most often, for every image; the smallest one fills up where there are fewer."""
        prompts, counts = chosen.unique(return_counts=True)
        missing = self.settings.pool_size - len(prompts)  # filled up to the pool's size as in the port: it decides ties
        prompts = torch.cat([prompts, prompts[:1].expand(missing)])
        counts = torch.cat([counts, counts.new_zeros(missing)])
        return prompts[counts.topk(self.settings.top_k).indices].expand(len(chosen), -1)

    def pooled(self, pixels: torch.Tensor, query: torch.Tensor, task: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        similarity = self.similarity(query)
        chosen = self.select(similarity, task)
        return self.read_prompts(pixels, chosen), -self.settings.pull * self.attraction(similarity, chosen)

    def attraction(self, similarity: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """(1 / B) sum_b sum_{m in S_b} s_bm."""
        return similarity.gather(1, chosen).sum() / len(similarity)

    def read_prompts(self, pixels: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """(b, D): mean output at the prompts' positions."""
        visual = vision_transformer(self.backbone.clip.visual)
        prompts = self.pool[chosen].flatten(1, 2)  # (b, N L, D)
        x = image_tokens(visual, pixels, prompts)
        for block in blocks(visual):
            x = block(x)
        return visual.ln_post(x[:, 1 : 1 + prompts.shape[1]]).mean(dim=1)
