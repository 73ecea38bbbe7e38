"""Continual-CLIP as its authors ran it: zero-shot CLIP with their prompts."""

from dataclasses import dataclass

from bench import setting
from methods.shared.class_names import check_template, underscored
from methods.zero_shot import ZeroShot

AUTHORS = "vgthengane/Continual-CLIP"
BAD, GOOD = "a bad photo of a {}.", "a good photo of a {}."


@dataclass(frozen=True)
class ContinualCLIPSettings:
    template: str | None = setting(None, "the one prompt of every class; none: the protocol's templates, averaged", AUTHORS)
    keep_underscores: bool = setting(False, "write names of several words with underscores, as in CIFAR100's files", AUTHORS)

    def __post_init__(self) -> None:
        check_template("template", self.template)


class ContinualCLIP(ZeroShot):
    """Continual-CLIP with its authors' prompts: frozen zero-shot CLIP and one template per data set.

    Paper: "CLIP model is an Efficient Continual Learner", V. Thengane, S. Khan, M. Hayat, F. Khan, arXiv 2210.03114 (2022).

    Class vector t_c = norm(g(template(c))); logit = exp(logit scale) * cos(f(x), t_c). Nothing is trained or kept.

    The same model as `zero-shot`, which takes the protocol's templates and averages them. The prompt is the method's only
    hyper-parameter and moves its numbers by a point or two, so the released choices are recipes here:

        CIFAR100 (names with underscores), TinyImageNet     "a bad photo of a {}."
        ImageNet-100, ImageNet-1000, CORe50                 "a good photo of a {}."
        any other data set                                  none was released: the protocol's templates, as in `zero-shot`

    So on protocols of the last kind, the mini world's among them, both names give the same numbers.

    Raises BenchError for a template without a place for the class name.
    """

    Settings = ContinualCLIPSettings
    settings: ContinualCLIPSettings
    recipes = {
        "cifar100-*": {"template": BAD, "keep_underscores": True},
        "tinyimagenet-*": {"template": BAD},
        "imagenet100-*": {"template": GOOD},
        "imagenet1000-*": {"template": GOOD},
        "core50-*": {"template": GOOD},
    }

    on_embeddings = {"template": None, "keep_underscores": False}

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        other_texts = self.settings.template is not None or self.settings.keep_underscores
        return ("towers",) if other_texts else ("features", "texts")

    def prepare(self) -> None:
        scenario = underscored(self.scenario) if self.settings.keep_underscores else self.scenario
        every_class = range(len(scenario.class_names))
        prompts = scenario.prompts_of(every_class, self.settings.template)
        self.register_buffer("class_vectors", self.backbone.classifier(prompts))  # (N, d)
