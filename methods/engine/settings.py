"""The hyper-parameters of ENGINE."""

from dataclasses import dataclass

from bench import BenchError, Range, setting


@dataclass(frozen=True)
class ENGINESettings:
    """Defaults: ImageNet-R, Food-101, Stanford Cars and SUN397, which have the same."""

    descriptions: str | None = setting(
        None, "JSON file {class: {other class: [sentences]}}; none: without descriptions in training and at test",
        "none are shipped", names_file=True,
    )  # fmt: skip
    epochs: int = setting(10, "passes over the images of every task", search=Range(2, 20))
    batch_size: int = setting(64, "images per step; one prototype of every old class comes on top")
    lr: float = setting(
        0.05, "peak rate of SGD, which starts anew with every task; a cosine, stepped by epoch", search=Range(1e-3, 0.5, log=True)
    )
    min_lr: float = setting(0.0, "the rate at which the cosine ends")
    momentum: float = setting(0.9, "of SGD")
    weight_decay: float = setting(
        0.05, "of SGD, on the weights and offsets of the newest units", search=Range(1e-4, 0.1, log=True)
    )
    image_weight: float = setting(
        2.0, "weight of the loss towards noisy copies of the images; 0: no image is read again", search=Range(0.1, 10.0, log=True)
    )
    pixel_noise: float = setting(0.25, "standard deviation of the noise of these copies")
    prototype_noise: float = setting(
        0.25, "standard deviation of the noise on old classes' prototypes, per coordinate of raw features (of LAION's weights)"
    )
    text_weight: float = setting(2.0, "weight of the loss towards descriptions, if there are any")
    discriminant_weight: float = setting(
        0.8, "share of the linear discriminant in a score; 0: the units alone", search=Range(0.0, 1.0, step=0.1)
    )
    rerank_weight: float = setting(0.8, "share of re-ranking in the rest of a score, if there are descriptions")
    rerank_top: int = setting(5, "k: so many of the best classes are looked at again; 2 or more")
    rerank_draws: int = setting(3, "draws of descriptions that re-ranking averages over")
    log_temperature: bool = setting(True, "as released: cosines times the logarithm of CLIP's logit scale, not the scale")
    noise_on_normalised: bool = setting(
        True, "as released: pixel noise after normalising, then cut to [0, 1], which loses what is darker than the mean"
    )
    frozen_units_decay: bool = setting(
        False, "as with torch before 2.0: weight decay and momentum keep shrinking the units of past tasks, towards nothing"
    )
    compare_with_later: bool = setting(
        True, "as released: descriptions in training also compare with classes of later tasks, and so name them"
    )

    def __post_init__(self):
        if min(self.epochs, self.batch_size, self.rerank_draws) < 1 or self.rerank_top < 2:
            raise BenchError("epochs, batch_size and rerank_draws: choose 1 or more; rerank_top: 2 or more")
        for name in ("image_weight", "text_weight", "pixel_noise", "prototype_noise"):
            if not getattr(self, name) >= 0:
                raise BenchError(f"{name}={getattr(self, name)}: choose 0 or more")
        for name in ("discriminant_weight", "rerank_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise BenchError(f"{name}={getattr(self, name)}: choose a value from 0 to 1")
