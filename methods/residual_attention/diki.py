"""DIKI: prompts read by a second attention beside the frozen one, a bank per task, weighed by how familiar an image is."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import Draws
from bench.clip.tower_types import vision_transformer
from methods.residual_attention.residual_method import ResidualAttention, ResidualSettings
from methods.residual_attention.towers import Bank, Strength, TowerAdditions, merged


@dataclass(frozen=True)
class DIKISettings(ResidualSettings):
    """Defaults: MTIL, in all three of the authors' files."""


class ResidualPrompts(TowerAdditions):
    """Keys and values (rows (depth, 2, p, D)) of one tower: R = softmax(q K^T / sqrt(d)) V, head by head.

    They are cut into heads as they are: they pass neither the block's projections nor a mask.
    """

    def __init__(self, keys: torch.Tensor):
        super().__init__()
        self.depth = len(keys)
        self.rows = torch.nn.Parameter(torch.stack([keys, torch.zeros_like(keys)], dim=1))  # values start at 0: as CLIP

    def added(self, index: int, x: torch.Tensor, queries: torch.Tensor, strength: Strength | None) -> torch.Tensor:
        n, heads = queries.shape[:2]
        rows = self.rows[index].to(queries.dtype).unflatten(-1, (heads, -1)).transpose(1, 2)  # (2, H, p, d)
        keys, values = (part.expand(n, -1, -1, -1) for part in rows)
        read = merged(F.scaled_dot_product_attention(queries, keys, values))
        return read if strength is None else read * strength.own.to(read.dtype).view(-1, 1, 1)


class DIKI(ResidualAttention):
    """DIKI: learned prompts that a second attention reads beside the frozen one, one bank of them per task.

    Paper: "Mind the Interference: Retaining Pre-trained Knowledge in Parameter Efficient Continual Learning of Vision-Language
    Models", L. Tang, Z. Tian, K. Li, C. He, H. Zhou, H. Zhao, X. Li, J. Jia, ECCV 2024, arXiv 2407.05342.

    Frozen: both towers and the logit scale. Trained for each task: keys and values K, V (p, D) in the first 8 blocks of either
    tower, p = 8, D the tower's width. K starts uniform in [-1, 1), V at 0, so an untrained bank changes nothing. With A (L, D)
    what the frozen heads gather, and R = softmax(q K^T / sqrt(d)) V head by head from the same queries:

        attention = W_o (A + w R) + b_o                                          residual_attention/towers.py
        score of class c = s cos(f(x), t_c)                                      of its data set's first template

    Every token gets R, the class token and what stands before and behind a name alike.

    Learning a task. A Gaussian of the unit features of the frozen image tower, with 1e-7 on the diagonal; it never changes. Then
    cross-entropy among the task's classes, with bank t at w = 1; SGD without momentum at a rate of 5. After each epoch the
    accuracy on held-out training images is taken, and the bank of the best epoch is kept, the first of equals.

    Testing a batch of images (residual_attention/familiarity.py). Each image has the weight w_i = sigmoid(l_i / 512 - 1) by the
    Gaussian under which it is densest; the task that most images find densest gives the bank for all; image i passes with
    this bank at w_i, the texts of all classes at the mean of w_i. An image far from all Gaussians is left to zero-shot CLIP.

    A score depends on the other images of the batch, by the vote and by the mean. As published, batches of 256 images of one
    data set in its order are tested together: the vote is nearly perfect then, as if the task were told. That is the default,
    for with single images every image costs a text pass of all classes; `test_batches=single` gives that inductive form (vote
    and mean are the image's own), `mixed` batches of all learned tasks.

    Unseen classes: the same formulas. Their images are rarely dense anywhere, so that w is near 0 and they get about CLIP's
    scores. Class-incremental streams are not in the paper: texts of all classes then pass with the one bank that was voted
    for, so that classes of other tasks are compared under a bank that was not trained on them.

    Traps of the release:
    - Few images: with fewer than E of them a Gaussian is singular but for 1e-7. Every test image is far from it then, w is 0, and
      scores are zero-shot CLIP's. So with 16 shots of 10 classes (the authors leave EuroSAT and MNIST out), and in small trials.
    - w is at most about 0.8, on training images too: banks are trained at 1 and used below it. Epochs are compared at w = 1 with
      the task given, hence for another model than the one that is tested (`validated_at_full_weight`).
    - 512 is the width of ViT-B/16's features and does not follow the tower (`weight_divisor`).
    - "_" becomes " " after the name is filled in, in the whole prompt.

    Kept per task: both banks (164 thousand numbers with ViT-B/16) and a Gaussian, of 263 thousand, which the paper's count of
    parameters leaves out (`bench table --view cost`). No image. Every test image passes three times: the frozen image tower,
    the one with a bank, and a share of the text pass.

    Deviations from the authors' code. Precision is the backbone's, theirs float16 with means and covariances in float32;
    log-densities are computed in float64. Covariances are kept as Cholesky factors. Held-out images are 20 % of each class's,
    theirs those of CoOp's splits where there are some (and 4 besides the 16 of few-shot runs). Prompts are cut at the longest,
    and a batch whose weights are all below 1e-12 gets zero-shot scores: the same numbers. In a tie of the vote the lowest task
    wins (theirs: undefined). With a weight decay their other banks would shrink, here only the task's own does. Class names are
    the protocol's. A protocol's limit on training images counts those that are trained on, not those held out.

    Raises BenchError for impossible settings, RunFailure when training diverges.
    """

    Settings = DIKISettings
    settings: DIKISettings
    recipes = {
        # ours: the mini CLIP has 4 and 3 blocks, and features of 128 numbers; about as many steps, of fewer images
        "mini*": {"image_depth": 3, "text_depth": 2, "weight_divisor": 128.0, "epochs": 5, "batch_size": 64},
    }
    quick = {"epochs": 2}
    paper = (
        '"Mind the Interference: Retaining Pre-trained Knowledge in Parameter Efficient Continual Learning of Vision-Language '
        'Models", Tang et al., ECCV 2024, arXiv 2407.05342'
    )
    trains = "keys and values of a second attention in the first blocks of both towers, for each task; CLIP is frozen"
    conformance = (
        "checked: Gaussians, rates, losses, logits, gradients, banks of both towers over tasks, best epoch, log-densities, vote, "
        "weights, logits of batches and of single images, of learned and unlearned classes; not checked: float16, ties of the "
        "vote, weight decay, class-incremental streams"
    )

    def new_bank(self, task: int) -> Bank:
        settings, clip = self.settings, self.backbone.clip
        image_width = vision_transformer(clip.visual).ln_post.normalized_shape[0]
        image = first_keys(self.draws, (settings.image_depth, settings.image_rows, image_width), "image", task)
        text = first_keys(self.draws, (settings.text_depth, settings.text_rows, self.backbone.text_width), "text", task)
        return Bank(ResidualPrompts(image), ResidualPrompts(text))


def first_keys(draws: Draws, shape: tuple[int, ...], tower: str, task: int) -> torch.Tensor:
    """(depth, p, D) uniform in [-1, 1)."""
    return 2 * draws.uniform(shape, f"{tower} keys", task) - 1
