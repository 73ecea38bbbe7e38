"""What DIKI and DPW share: a bank per task, Gaussians that tell how familiar an image is, the best epoch, two forms of test."""

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import BenchError, Choices, Composition, Method, Range, Split, Task, TestBatches, setting
from bench.clip.image_tower import blocks
from methods.residual_attention.familiarity import Familiarity, familiarity
from methods.residual_attention.held_out import Division, divided
from methods.residual_attention.towers import Bank, Strength, image_features, text_features
from methods.shared.batches import Batch, steps_within_budget
from methods.shared.class_gaussians import ClassGaussians
from methods.shared.descent import Descent
from methods.shared.modules import ModulesOf
from methods.shared.pixels import pixel_batches
from methods.shared.schedules import cosine_per_iteration

NEGLIGIBLE = 1e-12  # weights below it change nothing that a float32, or the comparison with the authors' code, could show
AT_ONCE = 256  # held-out images, or texts of a test, in one pass


@dataclass(frozen=True)
class ResidualSettings:
    image_depth: int = setting(8, "blocks of the image tower that a task adds to, the first ones")
    text_depth: int = setting(8, "blocks of the text tower that a task adds to, the first ones")
    image_rows: int = setting(8, "p: learned rows per block of the image tower and task", search=Choices(4, 8, 16))
    text_rows: int = setting(8, "p: learned rows per block of the text tower and task", search=Choices(4, 8, 16))
    epochs: int = setting(10, "passes over the task's images, of which the best is kept")
    batch_size: int = setting(128, "images per step")
    lr: float = setting(5.0, "peak rate of SGD; a cosine, stepped by iteration", search=Range(0.3, 20.0, log=True))
    cosine_floor: float = setting(1e-3, "the rate at which the cosine ends, as a fraction of its peak")
    momentum: float = setting(0.0, "of SGD")
    weight_decay: float = setting(0.0, "of SGD, on the task's own bank alone")
    validation_share: float = setting(0.2, "of each class's training images, held out to choose the best epoch; 0: keep the last")
    validated_at_full_weight: bool = setting(
        True, "as released: epochs are compared with weight 1 and the task given; false: with the weights that a test would have"
    )
    covariance_ridge: float = setting(1e-7, "added to the diagonal of every task's covariance")
    weight_divisor: float = setting(512.0, "of log-densities; the width of ViT-B/16's features, whatever the tower")
    weight_offset: float = setting(1.0, "taken from divided log-densities before the sigmoid")
    test_batches: Composition = setting(
        "task", "which images share a vote and a text weight: those of one task (as published), mixed, or single"
    )
    test_batch_size: int = setting(256, "test images that share them")

    def __post_init__(self):
        if min(self.image_depth, self.text_depth, self.image_rows, self.text_rows) < 1:
            raise BenchError("image_depth, text_depth, image_rows and text_rows: choose 1 or more")
        if min(self.epochs, self.batch_size, self.test_batch_size) < 1:
            raise BenchError("epochs, batch_size and test_batch_size: choose 1 or more")
        if not 0 <= self.validation_share < 1:
            raise BenchError(f"validation_share={self.validation_share}: choose a share from 0 to less than 1")
        if min(self.covariance_ridge, self.weight_divisor) <= 0:
            raise BenchError("covariance_ridge and weight_divisor: they must be positive")
        if self.test_batches not in ("task", "mixed", "single"):
            raise BenchError(f"test_batches={self.test_batches!r}: choose task, mixed or single")


class ResidualAttention(Method):
    """A bank of learned values per task in both frozen towers; see the subclasses.

    Scores of a batch of test images depend on each other, unless `test_batches` is single: then every image is a batch.
    """

    settings: ResidualSettings
    inputs = "pixels"
    whole_batches = False  # whether an epoch leaves out a last batch that is smaller

    def prepare(self) -> None:
        settings, clip = self.settings, self.backbone.clip
        for name, depth, tower in (("image", settings.image_depth, clip.visual), ("text", settings.text_depth, clip)):
            if depth > len(blocks(tower)):
                raise BenchError(f"{name}_depth={depth}: {self.backbone.name}'s {name} tower has {len(blocks(tower))} blocks")
        self.gaussians = ClassGaussians(self.backbone.embedding_width, settings.covariance_ridge, dtype=self.dtype)
        self.banks: ModulesOf[Bank] = ModulesOf()

    def grow(self, task: Task) -> None:
        self.banks.append(self.new_bank(task.index).to(self.device, self.dtype))

    @property
    def dtype(self) -> torch.dtype:
        return self.backbone.clip.logit_scale.dtype

    @property
    def test_batches(self) -> TestBatches | None:
        settings = self.settings
        if settings.test_batches == "single":
            return None
        return TestBatches(settings.test_batches, settings.test_batch_size, shuffled=False)

    # -- what a method gives --------------------------------------------------------------------------------------

    @abstractmethod
    def new_bank(self, task: int) -> Bank:
        """The bank with which a task starts."""

    def start(self, task: Task, train: Split) -> None:
        """What happens to the task's bank before it is trained."""

    def epoch_ended(self, bank: Bank) -> None:
        """What happens between the steps of an epoch and its validation."""

    def seen_by_gaussian(self, features: torch.Tensor, task: int) -> torch.Tensor:
        """The features (n, E) that the task's Gaussian is taken of."""
        return features

    # -- learning -------------------------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        division = self.divide(task)
        train, held_out = task.train.chosen(division.trained_on), task.train.chosen(division.held_out)
        self.start(task, train)
        features = F.normalize(train.features(), dim=-1)
        self.gaussians.add([self.seen_by_gaussian(features, task.index)])
        self.fit(task, train, held_out)

    def divide(self, task: Task) -> Division:
        return divided(task.train.labels, self.settings.validation_share, self.draws, "held-out images", task.index)

    def fit(self, task: Task, train: Split, held_out: Split) -> None:
        """Train the task's bank, and keep it as it was after the epoch that did best on the held-out images."""
        settings, bank = self.settings, self.banks[task.index]
        steps = steps_within_budget(
            images=len(train), batch_size=settings.batch_size, epochs=settings.epochs, budget=self.scenario.images_per_task,
            whole_batches=self.whole_batches,
        )  # fmt: skip
        rates = cosine_per_iteration(settings.lr, steps, settings.cosine_floor)
        optimiser = torch.optim.SGD(
            bank.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        descent = Descent(self, optimiser, at_step=f"{task.name}, step", at_end=f"{task.name}, last step")
        tokens = self.tokens(task.classes)
        labels = train.labels.to(self.device) - task.classes[0]

        def read(batch: Batch) -> torch.Tensor:
            return train.pixels(batch.rows)

        best, kept = -1.0, {}
        batches = pixel_batches(
            self, read, images=len(train), batch_size=settings.batch_size, epochs=settings.epochs,
            budget=self.scenario.images_per_task, purpose=("batch order", task.index), whole_batches=self.whole_batches,
        )  # fmt: skip
        for _, of_epoch in itertools.groupby(batches, key=lambda item: item[0].epoch):
            bank.train()
            for (step, _, rows), pixels in of_epoch:
                logits = self.training_logits(bank, pixels, tokens)
                descent.step(F.cross_entropy(logits, labels[rows.to(self.device)]), rates[step])
            bank.eval()
            self.epoch_ended(bank)
            accuracy = self.validation_accuracy(task, held_out) if len(held_out) else best
            if accuracy > best or not len(held_out):
                best, kept = accuracy, {name: value.detach().clone() for name, value in bank.state_dict().items()}
        descent.finish()
        if kept:
            bank.load_state_dict(kept)

    def training_logits(self, bank: Bank, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(b, C) scores of a batch for the task's classes, with the bank at full weight."""
        images = image_features(self.backbone.clip.visual, pixels, bank.image)
        return self.cosines(images, text_features(self.backbone.clip, tokens, bank.text))

    @torch.no_grad()
    def validation_accuracy(self, task: Task, held_out: Split) -> float:
        """Share of the held-out images that the task's bank gets right among the task's classes."""
        bank, correct = self.banks[task.index], 0
        tokens, labels = self.tokens(task.classes), held_out.labels.to(self.device) - task.classes[0]
        features = F.normalize(held_out.features(), dim=-1)
        weights = self.familiarity_of(features).weights[:, task.index].to(features)
        texts = self.text_features(bank, tokens, None)
        for rows in torch.arange(len(held_out)).split(AT_ONCE):
            strength, here = None, rows.to(self.device)
            if not self.settings.validated_at_full_weight:
                strength = strength_of(weights[here])
                texts = self.text_features(bank, tokens, strength.of_batch)
            images = image_features(self.backbone.clip.visual, held_out.pixels(rows), bank.image, strength)
            correct += int((self.cosines(images, texts).argmax(dim=1) == labels[here]).sum())
        return correct / len(held_out)

    # -- scores ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        if self.settings.test_batches == "single":
            return torch.cat([self.scores(image, classes) for image in batch.split(1)])
        return self.scores(batch, classes)

    def scores(self, pixels: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """(b, C) scores of images that are tested together."""
        frozen = F.normalize(self.backbone.encode_images(pixels), dim=-1)
        if not len(self.gaussians):
            return self.zero_shot_scores(frozen, classes)
        return self.scores_by_banks(pixels, frozen, self.familiarity_of(frozen), classes)

    def scores_by_banks(
        self, pixels: torch.Tensor, frozen: torch.Tensor, familiar: Familiarity, classes: Sequence[int]
    ) -> torch.Tensor:
        """One bank for the batch: every image with its own weight, all texts with the mean of these."""
        strength = strength_of(familiar.own_weights.to(frozen))
        if bool(strength.own.max() < NEGLIGIBLE):
            return self.zero_shot_scores(frozen, classes)
        bank = self.banks[familiar.voted_task]
        images = image_features(self.backbone.clip.visual, pixels, bank.image, strength)
        return self.cosines(images, self.text_features(bank, self.tokens(classes), strength.of_batch))

    def zero_shot_scores(self, frozen: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        return self.cosines(frozen, self.frozen_texts(classes))

    def familiarity_of(self, features: torch.Tensor) -> Familiarity:
        """Of unit features (b, E) of the frozen image tower."""
        densities = self.gaussians.log_density(features)
        return familiarity(densities, self.settings.weight_divisor, self.settings.weight_offset)

    def cosines(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """(b, C) cosines of features (b, d) and (C, d), times CLIP's logit scale."""
        return self.backbone.logit_scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T

    # -- texts ----------------------------------------------------------------------------------------------------

    def prompts(self, classes: Sequence[int]) -> list[str]:
        """Underscores become spaces in the whole prompt, after the name is filled in."""
        return [prompt.replace("_", " ") for prompt in self.scenario.prompts(classes)]

    def tokens(self, classes: Sequence[int]) -> torch.Tensor:
        return self.backbone.tokenize(self.prompts(classes))

    def frozen_texts(self, classes: Sequence[int]) -> torch.Tensor:
        """(C, d) text features of CLIP."""
        return self.backbone.encode_text(self.prompts(classes))

    def text_features(self, bank: Bank, tokens: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """(C, d) of token ids (C, 77) with a bank at one weight () for all; none: at full weight."""
        found = []
        for part in tokens.split(AT_ONCE):
            strength = None if weight is None else Strength(weight.expand(len(part)), weight)
            found.append(text_features(self.backbone.clip, part, bank.text, strength))
        return torch.cat(found)


def strength_of(weights: torch.Tensor) -> Strength:
    """Of a batch of images with these weights (b,)."""
    return Strength(weights, weights.mean())
