"""CLG-CBM: scores of concepts in words, selected task by task, and a sparse linear head on them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from bench import BenchError, Task
from bench.system import progress
from methods.clg_cbm.concepts import Concepts
from methods.clg_cbm.search import ConceptSpread, SearchNet, nearest_free
from methods.clg_cbm.settings import MINI_CONCEPTS, CLGCBMSettings
from methods.shared.batches import budgets_of_phases, training_batches
from methods.shared.class_gaussians import ClassGaussians, by_class
from methods.shared.classifiers import ImageClassifier
from methods.shared.descent import Descent

RIDGE = 1e-4  # added to the diagonal of every class's covariance
SPARSE, L1_SHARE = 0.001, 0.99  # weight of the head's penalty, and the share in it of the sum of absolute values
REPLAYED = 2  # old classes that each step has samples of


class Layers(NamedTuple):
    concept: torch.Tensor  # E (M, D)
    head: torch.Tensor  # H (seen, M)


class CLGCBM(ImageClassifier):
    """CLG-CBM: image features scored by concepts in words, and classes by a sparse linear head on these scores.

    Paper: "Language Guided Concept Bottleneck Models for Interpretable Continual Learning", L. Yu, H. Han, Z. Tao, H. Yao,
    C. Xu, CVPR 2025, arXiv 2503.23283. What stands here is its authors' code (FisherCats/CLG-CBM); of the paper's text the
    abstract was read.

    CLIP is frozen. f (D,) is the unit image feature, a_j (D,) the unit text feature of a kept concept, "{prefix}{sentence}". K
    concepts for each class are kept of those that a user's file has for the task's classes (search.py): M = K seen in all.

        s = E x / |x|,   logits = H s        E (M, D), H (seen, M); all of both train in every task, old rows too
        loss = CE over seen classes - similarity_weight mean_j sum_rows q_j p_j + 0.001 (0.99 sum |H| + 0.005 sum H^2)
        q_j, p_j: (x . a_j)^3 and s_j^3 over the rows of the batch, each divided by its length

    Rows: the task's features; for every old class c the features of the new class r whose mean is most like c's class prompt,
    moved by m_c - m_r; and in each step samples of two old classes, from a Gaussian each (shared/class_gaussians.py). New rows
    and columns begin as PyTorch begins linear layers. No image is stored.

    Concepts: a JSON file {class: [sentences]}, with no fewer sentences for a task than it keeps. The authors' files have no
    licence, so none are shipped but those of the mini world, which are ours; elsewhere a run without a file is refused. What is
    in it is part of a run's identity.

    **Published numbers contain a choice by test accuracy.** The authors' code takes the accuracy on the task's TEST images every
    ten epochs, keeps the state that is best there, in the search and in the training, and stops the search by it. That is not
    offered: test images are sealed while a method learns. Here the last epoch counts.

    Other traps of the release: S is singular unless a task has more concepts than D, and is inverted all the same
    (`covariance_ridge` is ours); prefixes for food, flowers and cars lack the space at their end (recipes keep them so).
    Interpretability is not measured here. A last batch of one image is left out of the search, as BatchNorm cannot use it.

    Unseen classes have no rows: zero_shot = False. A score depends on no other image of the batch. Task-incremental streams
    are scored by the columns of a task.

    Kept of the past: E, H, the kept a_j, mean and covariance factor of every class (D^2 numbers: 1 MB a class with ViT-B/16).

    Deviations. Class prompts are the protocol's first template. A limit on training images counts all rows of the feature set.

    Raises BenchError for impossible settings, a file of concepts that is missing or not as it should be and a class without a
    training image, RunFailure when training diverges.
    """

    Settings = CLGCBMSettings
    settings: CLGCBMSettings
    recipes = {
        "cifar100-*": {"first_epochs": 61, "later_epochs": 61, "prefix": "A bad photo of an object with "},
        "cifar100-b50-*": {"first_epochs": 8, "later_epochs": 2},
        "cub200*": {"prefix": "The bird has "},
        "imagenet100-*": {"prefix": "A good photo of an object with "},
        "food101-*": {"prefix": "A photo of the food with"},
        "flowers102-*": {"prefix": "A photo of a flower with", "first_lr": 0.002, "later_lr": 0.002},
        "cars196*": {"prefix": "A photo of the car with"},
        "cars196-b100-*": {"later_epochs": 20, "first_lr": 0.01, "later_lr": 0.002},
        # ours: sentences that stand for themselves, few for each class; the largest of the authors' rates, for few steps
        "mini*": {
            "concepts": MINI_CONCEPTS, "prefix": "a photo of ", "kept_per_class": 3, "later_epochs": 20, "first_lr": 0.01,
            "later_lr": 0.01, "milestones": (10, 15),
        },
    }  # fmt: skip
    quick = {"search_epochs": 2, "first_epochs": 2, "later_epochs": 2}
    paper = (
        '"Language Guided Concept Bottleneck Models for Interpretable Continual Learning", Yu et al., CVPR 2025, arXiv 2503.23283'
    )
    trains = "a linear layer of concept scores and a sparse head on them; a classifier that selects concepts is thrown away"
    conformance = (
        "checked: search (losses, gradients, weights, kept concepts), statistics, feature sets, samples, losses, gradients, both "
        "layers over tasks, logits, all with the last epoch; not checked: the released choice of a state by test accuracy"
    )

    concept_layer: torch.Tensor
    head: torch.Tensor
    bank: torch.Tensor
    texts: torch.Tensor

    def prepare(self) -> None:
        super().prepare()
        settings, scenario, width = self.settings, self.scenario, self.backbone.embedding_width
        if settings.concepts is None:
            raise BenchError("it needs concepts: --set clg-cbm.concepts=FILE, a JSON file {class: [sentences]}")
        self.concepts = Concepts(settings.concepts, settings.prefix, scenario, self.backbone, settings.kept_per_class)
        texts = F.normalize(self.backbone.encode_text(scenario.prompts(range(len(scenario.class_names)))), dim=-1)
        self.register_buffer("texts", texts, persistent=False)  # (N, D) unit
        for name in ("concept_layer", "bank"):  # E and a_j (M, D)
            self.register_buffer(name, texts.new_zeros(0, width))
        self.register_buffer("head", texts.new_zeros(0, 0))  # H (seen, M)
        self.gaussians = ClassGaussians(width, RIDGE)

    # -- learning -------------------------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        settings = self.settings
        features, labels = F.normalize(task.train.features(), dim=-1), task.train.labels.to(self.device)
        groups = by_class(features, labels, task.classes, self.scenario.class_names)
        epochs = settings.later_epochs if task.index else settings.first_epochs
        n_rows = sum(map(len, groups)) * len(range(task.classes[-1] + 1)) // len(groups)
        budgets = budgets_of_phases(self.scenario, [len(labels) * settings.search_epochs, n_rows * epochs])
        kept = self.search(task, features, labels - task.classes[0], budgets[0])
        self.bank = torch.cat([self.bank, kept])
        relation = self.relation(groups)
        self.gaussians.add(groups)
        rows, of_rows = self.feature_set(task, groups, relation)
        self.train_layers(task, rows, of_rows, epochs, budgets[1])
        self.count_classes(task)

    def search(self, task: Task, features: torch.Tensor, labels: torch.Tensor, budget: int | None) -> torch.Tensor:
        """(K C, D) the concepts that are kept; labels are positions in the task."""
        settings, concepts = self.settings, self.concepts.features(task)
        spread = ConceptSpread(concepts, settings.covariance_ridge)
        net = self.fresh_net(task, len(concepts)).to(features)
        optimiser = torch.optim.Adam(net.parameters(), lr=settings.search_lr)
        descent = Descent(self, optimiser, at_step=f"{task.name}, search step", at_end=f"{task.name}, search")
        batches = training_batches(
            self.draws, images=len(labels), batch_size=settings.batch_size, epochs=settings.search_epochs, budget=budget,
            purpose=("search order", task.index),
        )  # fmt: skip
        for batch in batches:
            if len(batch.rows) > 1:
                rows = batch.rows.to(features.device)
                descent.step(self.search_loss(net, spread, features[rows], labels[rows]), settings.search_lr)
            else:
                progress.step(None)  # a single image: nothing to normalise a batch by
        descent.finish()
        weights = net.first.weight.detach()
        return concepts[nearest_free(weights, concepts, settings.kept_per_class * len(task.classes)).to(concepts.device)]

    def fresh_net(self, task: Task, n_concepts: int) -> SearchNet:
        return SearchNet(self.backbone.embedding_width, n_concepts, len(task.classes), self.draws, task.index)

    def search_loss(self, net: SearchNet, spread: ConceptSpread, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        apart = spread.loss(net.first.weight, self.settings.division_power)
        return F.cross_entropy(net(features), labels) + apart.to(features)

    def relation(self, groups: list[torch.Tensor]) -> list[int]:
        """For each old class, the place in the task of the class that it borrows features from."""
        means = F.normalize(torch.stack([group.double().mean(dim=0) for group in groups]), dim=-1)
        return (self.texts[: len(self.gaussians)].double() @ means.T).argmax(dim=1).tolist()

    def feature_set(
        self, task: Task, groups: list[torch.Tensor], relation: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, D) what is trained on, and its labels (n,): new classes, then old ones as they came."""
        means, n_old = self.gaussians.means, len(relation)
        borrowed = [groups[r] - means[n_old + r] + means[c] for c, r in enumerate(relation)]
        owners = [*task.classes, *range(n_old)]
        parts = [*groups, *borrowed]
        labels = [torch.full((len(part),), c, device=self.device) for part, c in zip(parts, owners)]
        return torch.cat(parts), torch.cat(labels)

    def train_layers(self, task: Task, features: torch.Tensor, labels: torch.Tensor, epochs: int, budget: int | None) -> None:
        settings, known = self.settings, len(self.head)
        layers = Layers(*(torch.nn.Parameter(layer) for layer in self.grown(task)))
        peak = settings.later_lr if task.index else settings.first_lr
        descent = Descent(
            self, torch.optim.Adam(layers, lr=peak), at_step=f"{task.name}, step", at_end=f"{task.name}, last step"
        )
        order = self.draws.permutation(known, "replayed classes", task.index) if known else torch.zeros(0, dtype=torch.long)
        batches = training_batches(
            self.draws, images=len(labels), batch_size=settings.batch_size, epochs=epochs, budget=budget,
            purpose=("batch order", task.index),
        )  # fmt: skip
        epoch, start = -1, 0
        for batch in batches:
            if batch.epoch != epoch:
                epoch, start = batch.epoch, batch.step
            chosen = batch.rows.to(features.device)
            rows, of_rows = features[chosen], labels[chosen]
            if known:
                place = REPLAYED * (batch.step - start)
                old = order[[(place + k) % known for k in range(REPLAYED)]]
                samples, of_samples = self.samples(old, task.index, batch.step)
                rows, of_rows = torch.cat([rows, samples]), torch.cat([of_rows, of_samples])
            rate = peak * 0.1 ** sum(milestone <= epoch for milestone in settings.milestones)
            descent.step(self.loss(layers, rows, of_rows), rate)
        descent.finish()
        self.check_finite(layers.head.detach().sum(), f"{task.name}, the head after the last step")
        self.concept_layer, self.head = layers.concept.detach(), layers.head.detach()

    def samples(self, old: torch.Tensor, task: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples of these old classes (2,) and their labels."""
        shape = (len(old), self.settings.samples_per_class, self.bank.shape[1])
        drawn = self.gaussians.sample(old, self.draws.normal(shape, "samples", task, step))
        return drawn.flatten(0, 1), old.to(self.device).repeat_interleave(shape[1])

    def grown(self, task: Task) -> Layers:
        """E and H with rows and columns for the task, as training begins with them."""
        new_rows, head = self.fresh_layers(task)
        known, before = self.head.shape
        head[:known, :before] = self.head
        return Layers(torch.cat([self.concept_layer, new_rows]), head)

    def fresh_layers(self, task: Task) -> Layers:
        """New rows of E (K C, D), and a whole H (seen, M), of which what is old is not used."""
        n_concepts, width = self.bank.shape
        with self.draws.initialising("layers", task.index):
            rows = torch.nn.Linear(width, n_concepts - len(self.concept_layer), bias=False).weight
            head = torch.nn.Linear(n_concepts, task.classes[-1] + 1, bias=False).weight
        return Layers(rows.detach().to(self.bank), head.detach().to(self.bank))

    def loss(self, layers: Layers, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = F.normalize(rows, dim=-1) @ layers.concept.T
        loss = F.cross_entropy(scores @ layers.head.T, labels)
        return loss + self.settings.similarity_weight * self.unlikeness(rows, scores) + self.penalty(layers.head)

    def unlikeness(self, rows: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """-1 where every concept's scores (n, M) go with its similarities to the rows (n, D)."""
        of_texts, of_layer = F.normalize((rows @ self.bank.T) ** 3, dim=0), F.normalize(scores**3, dim=0)
        return -(of_texts * of_layer).sum(dim=0).mean()

    def penalty(self, head: torch.Tensor) -> torch.Tensor:
        return SPARSE * (L1_SHARE * head.abs().sum() + (1 - L1_SHARE) / 2 * head.square().sum())

    # -- scores ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        columns = self.columns(classes)
        return (F.normalize(batch, dim=-1) @ self.concept_layer.T @ self.head.T)[:, columns]
