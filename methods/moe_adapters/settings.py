"""The settings of MoE-Adapters: the class-incremental form, and what MTIL has in other ways."""

from dataclasses import dataclass
from typing import Literal

from bench import BenchError, Composition, Range, setting
from methods.moe_adapters.domain_selection import DomainSelectionSettings

MTIL = {
    "experts": 22,
    "routers": "per_task",
    "freeze_used": 2,
    "domain_selection": True,
    "epochs": 0,
    "batch_size": 64,
    "warmup": 100,
    "label_smoothing": 0.2,
    "lr_of_task": (("aircraft", 5e-3), ("cifar100", 5e-3), ("eurosat", 1e-4), ("mnist", 1e-4)),
    "reference_images": "tiny-imagenet",
}


@dataclass(frozen=True)
class MoEAdaptersSettings(DomainSelectionSettings):
    """Defaults: the class-incremental form. The values of MTIL are in `MoEAdapters.recipes`."""

    experts: int = setting(2, "adapters E in every block; 22 in MTIL")
    chosen: int = setting(2, "experts k that a sample is sent to")
    bottleneck: int = setting(64, "width of an adapter")
    adapter_scale: float = setting(0.1, "factor on an adapter's output", search=Range(0.02, 1.0, log=True))
    adapter_dropout: float = setting(0.1, "on an adapter's hidden layer, in training")
    routers: Literal["shared", "per_task"] = setting("shared", "one router for all tasks, or a new one for each")
    freeze_used: int = setting(0, "experts of each block that are frozen after a task, the most used ones; 2 in MTIL")
    test_noise: bool = setting(False, "leave the gating noise on at test time, as the class-incremental code does")
    crop_scale: float = setting(0.9, "train on random crops of at least this share of an image's area; 1: no crops")
    test_transform: Literal["fixed_view", "zscl_cil_random_crop"] = setting(
        "fixed_view", "crop test images at random too, as the class-incremental code does"
    )
    epochs: int = setting(1, "passes over the task's images; 0: use `iterations`")
    iterations: int = setting(1000, "updates per task, less one: the loop makes one more")
    batch_size: int = setting(128, "images per update")
    lr: float = setting(1e-3, "peak learning rate of AdamW", search=Range(1e-4, 0.03, log=True))
    lr_of_task: tuple[tuple[str, float], ...] = setting((), "pairs (task name, peak learning rate) where it differs")
    warmup: int = setting(30, "updates of linear warm-up; then a cosine to 0")
    label_smoothing: float = setting(
        0.0, "share of the target that is spread evenly over the task's classes", search=Range(0.0, 0.3, step=0.05)
    )
    beta1: float = setting(0.9, "AdamW's decay of the gradient average")
    beta2: float = setting(0.999, "AdamW's decay of the squared-gradient average")
    eps: float = setting(1e-8, "AdamW's epsilon")
    weight_decay: float = setting(0.0, "AdamW's decoupled weight decay")
    test_batches: Composition = setting("task", "which test images are scored together, where it matters; published: one task")
    test_batch_size: int = setting(128, "images of a test batch, where it matters")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("experts", "chosen", "bottleneck", "batch_size", "test_batch_size"):
            if getattr(self, name) < 1:
                raise BenchError(f"{name}={getattr(self, name)}: choose 1 or more")
        for name in ("chosen", "freeze_used"):
            if getattr(self, name) > self.experts:
                raise BenchError(f"{name}={getattr(self, name)}: there are only experts={self.experts}")
        if self.domain_selection and self.routers == "shared":
            raise BenchError("domain_selection chooses among routers: it needs routers=per_task")
        if self.routers == "per_task" and not self.domain_selection:
            raise BenchError("routers=per_task: something must choose the router of a test image; set domain_selection=true")
        if not 0 < self.crop_scale <= 1 or not 0 <= self.adapter_dropout < 1:
            raise BenchError("crop_scale must be above 0 and at most 1, adapter_dropout at least 0 and below 1")
