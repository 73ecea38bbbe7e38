"""CCA-CL: images and class texts meet in the space of their canonical correlations, in closed form after every task."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from bench import BenchError, Method, Range, Split, Task, setting
from bench.clip.text_tower import encode_tokens
from bench.clip.tower_types import ClipModel
from methods.closed_form.canonical_correlation import RunningCorrelation
from methods.shared.batches import Batch
from methods.shared.class_names import check_template, underscored
from methods.shared.classifiers import Inputs
from methods.shared.descent import Descent
from methods.shared.pixels import check_crop_scale, pixel_batches, training_pixels
from methods.shared.schedules import cosine_per_iteration

IMAGES_AT_ONCE = 256  # through the tuned tower
ROWS_AT_ONCE = 4096  # random features that are held: 200 MB of 6144 each; batches are not cut

SEVEN = (
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.",
)  # fmt: skip
BIRDS = ("a photo of a {}, a type of bird.", "A photo of a {} bird with unique features.")


@dataclass(frozen=True)
class CCACLSettings:
    """Defaults: CIFAR-100."""

    tuned_epochs: int = setting(6, "passes over the first task's images in which all of CLIP is tuned; 0: CLIP stays as it is")
    lr: float = setting(
        5e-6,
        "tuning: peak rate of SGD, a cosine to 0, stepped by epoch (authors: init_lr 0.05 times 1e-4)",
        search=Range(1e-6, 0.05, log=True),
    )
    momentum: float = setting(0.9, "tuning: of SGD")
    weight_decay: float = setting(0.05, "tuning: of SGD, on everything that is trained")
    batch_size: int = setting(64, "tuning: images per step")
    log_temperature: bool = setting(True, "tuning, as released: cosines times the logarithm of CLIP's logit scale, not the scale")
    crop_scale: float = setting(1.0, "tuning: smallest share of an image's area in a random crop; 1: no crops")
    mirrored_view: bool = setting(False, "tuning: half of the images mirrored, drawn anew for every epoch")
    statistics_batch: int = setting(64, "images of a batch, from whose means their scatter is taken")
    pooled_covariance: bool = setting(False, "scatter from the means of all images so far, as in the textbook", "harness")
    random_features: int = setting(6144, "width D of the random Fourier features; 0: the features themselves")
    sigma: float = setting(1.0, "width of the kernel that they stand for", search=Range(0.2, 5.0, log=True))
    ridge: float = setting(1e-4, "added to the diagonal of both covariances", search=Range(1e-6, 0.1, log=True))
    eigenvalue_floor: float = setting(1e-4, "least eigenvalue of a covariance in its inverse root")
    energy: float = setting(0.999, "directions are taken while their share of the squared correlations is at most this")
    correlation_floor: float = setting(1e-6, "least correlation that a text direction is divided by")
    whiten_text_once: bool = setting(False, "the textbook's text directions: the released ones are whitened twice", "harness")
    temperature: float = setting(0.07, "the cosines in the common space are divided by it")
    templates: tuple[str, ...] = setting((), "prompts of every class, the first one for tuning; none: those of the protocol")
    keep_underscores: bool = setting(False, "as released: names of several words as the data set's files write them")

    def __post_init__(self):
        if min(self.batch_size, self.statistics_batch) < 1 or min(self.tuned_epochs, self.random_features) < 0:
            raise BenchError("batch sizes: choose 1 or more; tuned_epochs and random_features: 0 or more")
        if min(self.sigma, self.ridge, self.eigenvalue_floor, self.correlation_floor, self.temperature) <= 0:
            raise BenchError("sigma, ridge, eigenvalue_floor, correlation_floor and temperature must be positive")
        if not 0 < self.energy <= 1:
            raise BenchError(f"energy={self.energy}: choose a share above 0, up to 1")
        check_crop_scale(self.crop_scale)
        for template in self.templates:
            check_template("templates", template)


class CCACL(Method):
    """CCA-CL: CLIP tuned on the first task, then canonical correlation of image and class-text features, in closed form.

    Paper: "Subspace Alignment for CLIP-based Continual Learning via Canonical Correlation Analysis", H. Zhang et al., CVPR 2026.
    What stands here is the released code (zhwhu/CCA-CL); the paper's text was not read.

    1. Tuning, first task only (`cca-cl-frozen`: not at all): every weight of both towers and the logit scale, by SGD. For B
       images x_b, with the text of their class y_b by the first template,

           S = log tau cos(f(x), g(y)) (B, B),     loss = (CE(S, diagonal) + CE(S^T, diagonal)) / 2

       Images of one class are each other's negatives. `log tau` is what was released, 4.6 where CLIP has 100 (`log_temperature`).
       Then the model is frozen for good.
    2. Statistics, every task, with z (d,) the unit image feature and t_c (d,) the unit mean over templates of unit text features:

           phi(v) = sqrt(2 / D) cos(v W + b) (D,),   W (d, D) normal / sigma, b uniform in [0, 2 pi), both drawn once
           scatter of phi(z), of phi(t_y) and between them, within batches   closed_form/canonical_correlation.py

    3. Scores, from canonical directions that are solved for after every task: with a (r,) an image's place, e_c a class's,

           score of class c = cos(a, e_c) / 0.07

    Kept of the past are the statistics, 8 (D^2 / 2 + C D + C^2) bytes (151 MB for D = 6144), no image and no feature; after
    tuning also the tuned CLIP (`bench table --view cost`). They depend on the order of images and the batch size, since scatter
    between batches does not count. A score depends neither on other images nor on the task.

    Unseen classes have a score by the same formula, from their text. Statistics of few classes whiten the other texts' directions
    by up to 1 / ridge: expect less than zero-shot CLIP. Before the first task it is zero-shot CLIP; so it is (with the tuned
    towers) while no batch has held images of two classes, for then nothing can be correlated.

    Deviations from the authors' code. Their rule for the number of directions finds none on a stream that begins with a task of
    two classes, where all their scores are 0: here the first direction always stays. Statistics are taken in double precision
    and of whole images, on ImageNet-100 too, where theirs are of random crops. Images are cropped at the centre, not squashed to
    a square, and normalised as CLIP's are. Their weights for "clip" are likely LAION's (`--pretrained laion400m_e32`);
    compare with those only.

    Raises BenchError for impossible settings, RunFailure when tuning diverges.
    """

    Settings = CCACLSettings
    settings: CCACLSettings
    recipes = {
        "imagenet100-*": {"batch_size": 32, "templates": SEVEN, "crop_scale": 0.08, "mirrored_view": True},
        "imagenet-r*": {"batch_size": 8, "templates": SEVEN, "keep_underscores": True},
        "cub200*": {"batch_size": 8, "templates": BIRDS},
        # ours: features of 128 numbers, not 512; a rate at which the tuning loss of the mini CLIP falls
        "mini*": {"random_features": 1024, "lr": 1e-2},
    }
    quick = {"tuned_epochs": 1, "random_features": 64}
    version = "2"  # few images are solved among themselves, which rounds otherwise
    paper = (
        '"Subspace Alignment for CLIP-based Continual Learning via Canonical Correlation Analysis", Zhang et al., CVPR 2026'
    )
    trains = "all of CLIP on the first task; then nothing: statistics and a closed form"
    conformance = (
        "checked: tuning (losses, rates, gradients, weights), random features, statistics, number of directions, correlations, "
        "logits of seen and unseen classes over tasks, with and without tuning; not checked: crops of ImageNet-100"
    )
    inputs: Inputs = "pixels"

    clip: ClipModel | None  # the tuned one; None: the backbone's, frozen
    class_vectors: torch.Tensor
    frequencies: torch.Tensor
    phases: torch.Tensor
    image_mean: torch.Tensor
    image_map: torch.Tensor
    places: torch.Tensor

    @property
    def needs(self) -> tuple[str, ...]:
        settings = self.settings
        return ("towers",) if settings.tuned_epochs or settings.templates or settings.keep_underscores else ("features", "texts")

    def prepare(self) -> None:
        settings, scenario = self.settings, self.scenario
        if settings.templates:
            scenario = replace(scenario, templates=(settings.templates,) * len(scenario.class_names))
        self.prompted = underscored(scenario) if settings.keep_underscores else scenario
        self.inputs, self.clip = "features", None
        if settings.tuned_epochs:
            self.inputs, self.clip = "pixels", self.backbone.trainable_copy()
            self.tuned.logit_scale.requires_grad_(True)
        self.register_buffer("class_vectors", self.encode_classes())  # t_c (N, d)
        width = settings.random_features or self.backbone.embedding_width
        if settings.random_features:
            frequencies = self.draws.normal((self.backbone.embedding_width, width), "random features") / settings.sigma
            self.register_buffer("frequencies", frequencies)  # W (d, D)
            self.register_buffer("phases", 2 * math.pi * self.draws.uniform((width,), "random phases"))  # b (D,)
        self.statistics = RunningCorrelation(width, settings.pooled_covariance)
        double = torch.float64
        self.register_buffer("image_mean", torch.zeros(width, dtype=double))  # (D,)
        self.register_buffer("image_map", torch.zeros(width, 0, dtype=double))  # (D, r)
        self.register_buffer("places", torch.zeros(len(self.class_vectors), 0, dtype=double))  # e_c (N, r)

    def encode_classes(self) -> torch.Tensor:
        """(N, d) unit text features of all classes of the stream, by the towers as they are."""
        return self.backbone.classifier(self.prompted.prompts_of(range(len(self.prompted.class_names))), clip=self.clip)

    @torch.no_grad()
    def classes_added(self, new: Sequence[int]) -> None:
        if self.image_map.shape[1]:
            self.class_vectors = self.encode_classes()
            self.solve(new[0])  # the classes before are those that it has learned

    def learn(self, task: Task) -> None:
        if self.clip is not None and task.index == 0:
            self.tune(task)
            self.class_vectors = self.encode_classes()
        self.note_statistics(task)
        self.solve(task.classes[-1] + 1)

    # -- tuning on the first task ---------------------------------------------------------------------------------

    @property
    def tuned(self) -> ClipModel:
        """The CLIP that is tuned."""
        assert self.clip is not None, "with tuned_epochs=0 nothing is tuned"
        return self.clip

    def tune(self, task: Task) -> None:
        settings = self.settings
        optimiser = torch.optim.SGD(
            self.tuned.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        rates = cosine_per_iteration(settings.lr, settings.tuned_epochs, 0.0)  # one for each epoch
        tokens = self.backbone.tokenize(self.prompted.prompts(task.classes))
        descent = Descent(self, optimiser, at_step=f"{task.name}, tuning step", at_end=f"{task.name}, last step of tuning")

        def read(batch: Batch) -> torch.Tensor:
            crop, mirrored = settings.crop_scale, settings.mirrored_view
            return training_pixels(task.train, batch, self.draws, crop=crop, mirrored=mirrored, purpose=("tuning", task.index))

        batches = pixel_batches(
            self, read, images=len(task.train), batch_size=settings.batch_size, epochs=settings.tuned_epochs,
            budget=self.scenario.images_per_task, purpose=("batch order", task.index),
        )  # fmt: skip
        for batch, pixels in batches:
            loss = self.contrastive_loss(pixels, tokens, task.train.labels[batch.rows] - task.classes[0])
            descent.step(loss, rates[batch.epoch])
        descent.finish()

    def contrastive_loss(self, pixels: torch.Tensor, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Every image against the texts of all images, and the other way round. Labels (B,) are rows of the tokens (C, 77)."""
        images = F.normalize(self.tuned.encode_image(pixels), dim=-1)
        present, own = labels.unique(return_inverse=True)  # a text is encoded once, however many images share it
        texts = F.normalize(encode_tokens(self.tuned, tokens[present.to(tokens.device)]), dim=-1)[own.to(images.device)]
        return self.loss_of_pairs(images, texts)

    def loss_of_pairs(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """The loss of unit features (B, d) of images and of their texts."""
        logarithm = self.tuned.logit_scale
        scale = logarithm if self.settings.log_temperature else logarithm.exp()
        similarity, diagonal = scale * images @ texts.T, torch.arange(len(images), device=images.device)
        return (F.cross_entropy(similarity, diagonal) + F.cross_entropy(similarity.T, diagonal)) / 2

    # -- statistics and scores ------------------------------------------------------------------------------------

    @torch.no_grad()
    def note_statistics(self, task: Task) -> None:
        order = self.draws.permutation(len(task.train), "statistics order", task.index)
        features, labels = self.image_features(task.train)[order], task.train.labels[order].to(self.device)
        size, n_classes = self.settings.statistics_batch, task.classes[-1] + 1
        rows = max(1, ROWS_AT_ONCE // size) * size
        for part, own in zip(features.split(rows), labels.split(rows)):
            self.statistics.add(self.expand(F.normalize(part, dim=-1)), own, n_classes, size)

    def image_features(self, split: Split) -> torch.Tensor:
        """(n, d) of all images of a split, by the towers as they are."""
        if self.clip is None:
            return split.features()
        return torch.cat([self.clip.encode_image(pixels) for pixels in split.batches("pixels", IMAGES_AT_ONCE)])

    def expand(self, vectors: torch.Tensor) -> torch.Tensor:
        """phi (n, D) of unit features (n, d), in double precision."""
        return fourier_features(vectors, self.frequencies, self.phases) if self.settings.random_features else vectors.double()

    def solve(self, n_classes: int) -> None:
        """Directions from the statistics of the classes so far, and the places of all classes of the stream along them."""
        settings, texts = self.settings, self.expand(self.class_vectors)
        self.found = self.statistics.directions(
            texts[:n_classes], settings.ridge, settings.eigenvalue_floor, settings.energy, settings.correlation_floor,
            settings.whiten_text_once,
        )  # fmt: skip
        self.image_mean, self.image_map = self.found.image_mean, self.found.image_map
        self.places = F.normalize((texts - self.found.text_mean) @ self.found.text_map, dim=-1)

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        features = F.normalize(batch if self.clip is None else self.clip.encode_image(batch), dim=-1)
        if not self.image_map.shape[1]:  # before the first task, or nothing to correlate yet: zero-shot CLIP
            return self.backbone.logit_scale * features @ self.class_vectors[list(classes)].T
        places = F.normalize((self.expand(features) - self.image_mean) @ self.image_map, dim=-1)
        return places @ self.places[list(classes)].T / self.settings.temperature


def fourier_features(vectors: torch.Tensor, frequencies: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
    """sqrt(2 / D) cos(v W + b) (n, D) of vectors (n, d), frequencies W (d, D) and phases b (D,), in double precision."""
    return (2 / len(phases)) ** 0.5 * torch.cos(vectors.double() @ frequencies.double() + phases.double())


@dataclass(frozen=True)
class CCACLFrozenSettings(CCACLSettings):
    tuned_epochs: int = setting(0, "passes over the first task's images in which all of CLIP is tuned; 0: CLIP stays as it is")


class CCACLFrozen(CCACL):
    """CCA-CL without any training (cca-cl-frozen): the statistics and the closed form alone, on stored features of frozen CLIP.

    Everything else as in `cca-cl`, whose second row of results in the paper it is.
    """

    Settings = CCACLFrozenSettings
    settings: CCACLFrozenSettings
    quick = {"random_features": 64}
    trains = "nothing: statistics and a closed form on features of frozen CLIP"
    inputs = "features"
