"""Joint full fine-tuning: the upper bound of `finetune`."""

from dataclasses import dataclass

import torch

from bench import Task, setting
from methods.fine_tuning.finetune import FineTune, FineTuneSettings


@dataclass(frozen=True)
class JointSettings(FineTuneSettings):
    """As fine-tuning's; the length of training is the harness's own choice, since no paper of this family gives one."""

    iterations: int = setting(11000, "updates in all, less one", "1000 for each of MTIL's 11 tasks")


class Joint(FineTune):
    """Joint full fine-tuning: the same training as `finetune`, but on all tasks at once. Upper bound of `finetune`.

    No paper of its own: the usual upper bound of continual learning, with the optimiser, schedule and loss of
    "Continual FT" in ZSCL (ICCV 2023, arXiv 2303.06628).

    Trained and frozen: as in `finetune`. The loss is that of `finetune` over the union of all training images x_i, with
    the candidates that evaluation will use (z_ic, s as there, K_i the candidates of image i, C_i their number):

        L = -1/B sum_i sum_{c in K_i} q_ic log softmax(z_i over K_i)_c,       q_ic = (1 - s) [c = y_i] + s / C_i

    - class-incremental: K_i = all classes;
    - task-incremental: K_i = the classes of the image's own task. Tasks share the batch, not the softmax.

    Training images are random crops, as in `finetune`. Every update encodes the prompts of all classes. Batches are drawn
    from the union, so a task counts by its number of images. Evaluated once, after the union is learned: `Last` has a
    meaning, averages over the stream do not.

    Deviations: there is no code to deviate from. Where class-incremental `finetune` makes one pass over each task, this
    makes five over the union, because a bound that has not converged bounds nothing.
    """

    Settings = JointSettings
    settings: JointSettings
    recipes = {
        "cifar100-*": {"epochs": 5, "warmup": 100, "lr": 1e-5},
        "tinyimagenet-*": {"epochs": 5, "warmup": 100, "lr": 1e-5},
        "imagenet100-*": {"epochs": 5, "warmup": 100, "lr": 1e-5, "batch_size": 128},
        "imagenet1000-*": {"epochs": 5, "warmup": 100, "lr": 1e-5, "batch_size": 128},
        "mini*": {"lr": 1e-3, "iterations": 240, "warmup": 10, "label_smoothing": 0.0, "crop_scale": 1.0},
        "mini-mtil-*": {"iterations": 200},
        "mini-xtail-*": {"iterations": 200},
    }
    paper = "upper bound without a paper of its own; training as Continual FT in ZSCL, arXiv 2303.06628"
    trains = "both encoders of CLIP, on all tasks at once; the logit scale stays frozen"
    conformance = "no vectors of its own: the update is that of finetune, which is checked; the loss by its formula"
    joint = True

    def loss(self, pixels: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        if not self.scenario.task_known:
            return super().loss(pixels, labels, task)
        owner = torch.tensor(self.scenario.task_of_class, device=self.device)  # (N,)
        candidates = owner[labels].unsqueeze(1) == owner  # (B, N)
        logits = self.training_logits(pixels, task.classes, len(labels))  # (B, N)
        return masked_cross_entropy(logits, labels, candidates, self.settings.label_smoothing)


def masked_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, candidates: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Mean label-smoothed cross-entropy in which every row (B, N) has its own candidates, True in `candidates`.

    torch's `label_smoothing` would spread over the masked classes too, and give infinity.
    """
    log_p = logits.masked_fill(~candidates, -torch.inf).log_softmax(dim=-1)  # (B, N)
    at_label = log_p.gather(1, labels.unsqueeze(1)).squeeze(1)  # (B,)
    mean = log_p.masked_fill(~candidates, 0.0).sum(dim=-1) / candidates.sum(dim=-1)  # (B,)
    return -((1 - smoothing) * at_label + smoothing * mean).mean()
