"""What each built-in method holds in memory, beside what every run does: terms of bench/runs/memory_terms.py.

Where a method has been measured with ViT-B/16 (tests/benchmarks/measured/pixel_methods_cpu.csv), its sum is compared with that
(tests/bench/runs/test_memory_needs.py). A method that is not here, a plug-in say, is "unknown".
"""

from collections.abc import Sequence

from bench.runs.memory_terms import (
    ADAM,
    COPY,
    DOUBLE,
    GRADIENT,
    LONG,
    MOMENTUM,
    Scale,
    Term,
    Terms,
    always,
    both_towers,
    class_covariances,
    class_vectors,
    exemplar_pixels,
    exemplars,
    features,
    image_tower,
    images_trained,
    numbers,
    square,
    texts_trained,
)

START = 1  # the weights at the task's start
TRAINED = COPY + START + GRADIENT + ADAM  # of fine-tuning


def _texts_of_every_image(s: Scale) -> float:
    """A prompt is made for every pair of an image and a class."""
    return s.batch


def _ridge(side: str) -> Terms:
    """Sums over expanded features (m, m), what solving them takes, and weights and sums by class (m, C)."""

    def terms(s: Scale) -> Sequence[Term]:
        m = s.setting(side) or s.towers.pooled
        return [
            Term("matrices of the expanded features (m x m)", 3 * DOUBLE * m**2),
            Term("weights of the classes (m x C)", 2 * DOUBLE * m * s.classes),
        ]

    return terms


def _kernel(s: Scale) -> Sequence[Term]:
    return [
        Term("the kernel matrix of all training images (n x n)", DOUBLE * s.train**2),
        Term("weights of all training images (n x C)", DOUBLE * s.train * s.classes),
        Term("embeddings of all training images", 4 * s.train * s.towers.width),
    ]


def _correlations(s: Scale) -> Sequence[Term]:
    side = s.setting("random_features") or s.towers.width
    return [
        Term("scatter of random features (D x D)", 3 * DOUBLE * side**2),
        Term("scatter of texts (C x C)", 3 * DOUBLE * s.classes**2),
        Term("scatter between them (C x D)", 2 * DOUBLE * s.classes * side),
    ]


def _generators(s: Scale) -> Sequence[Term]:
    width, hidden, latent = s.towers.width, s.setting("vae_hidden", 512), s.setting("vae_latent", 256)
    return [
        Term("a generator of every class", 4 * s.classes * (latent * hidden + hidden * width)),
        Term("generators that are trained together", 4 * 8 * s.largest_classes * (latent * hidden + hidden * width)),
        Term("synthetic embeddings of an epoch", 4 * s.setting("samples_per_class", 256) * s.classes * width),
    ]


def _mixtures(s: Scale) -> Sequence[Term]:
    parts = s.setting("mixture_components", 5)
    return [Term("mixtures of every class", 2 * 4 * s.classes * parts * (s.towers.width + s.towers.pooled))]


def _prompted_vision(s: Scale) -> Sequence[Term]:
    return images_trained()(s)


def _adapters_of_tasks(s: Scale) -> Sequence[Term]:
    """Two affine maps of every task, all of which are trained."""
    return [Term("adapters of every task", 4 * 4 * s.tasks * 2 * s.towers.width**2)]


def _clap(*more: Terms) -> tuple[Terms, ...]:
    return (class_vectors, _adapters_of_tasks, *more)


FINE_TUNED: tuple[Terms, ...] = (class_vectors, both_towers(TRAINED))
AVERAGED = (class_vectors, both_towers(TRAINED + 2))  # the path's mean, and its start
ON_FEATURES = (class_vectors, features(views=2), exemplars())
IMAGE_TOWER = COPY + GRADIENT + MOMENTUM

SUMS: dict[str, tuple[Terms, ...]] = {
    "attriclip": (*ON_FEATURES, texts_trained(all_classes=False, times=_texts_of_every_image)),
    "bofa": (features(pooled=True), numbers("texts of the classes", lambda s: 2 * s.classes * s.towers.pooled),
             square("moments and shared covariance", lambda s: s.towers.pooled, times=3)),
    "cca-cl": (class_vectors, both_towers(COPY + GRADIENT + MOMENTUM), images_trained(), texts_trained(all_classes=False),
               features(), _correlations),
    "cca-cl-frozen": (class_vectors, features(), _correlations),
    "cgil": (class_vectors, features(), _generators, texts_trained()),
    "clap": _clap(features(views=2), exemplars()),
    "clap-attriclip": _clap(features(views=2), exemplars(), texts_trained(times=_texts_of_every_image)),
    "clap-coop": _clap(features(views=2), exemplars(), texts_trained()),
    "clap-coop-novi": _clap(features(views=2), exemplars(), texts_trained()),
    "clap-maple": _clap(exemplar_pixels, images_trained(), texts_trained()),
    "clap-novi": _clap(features(views=2), exemplars()),
    "clg-cbm": (features(), class_covariances(),
                numbers("weights of classes by concepts (C x M)", lambda s: 4 * s.setting("kept_per_class", 10) * s.classes**2)),
    "clip-adapter": ON_FEATURES,
    "cocoop": (*ON_FEATURES, texts_trained(times=_texts_of_every_image)),
    "coda-prompt": (_prompted_vision,),
    "coleclip": (class_vectors, images_trained(), texts_trained(all_classes=False)),
    "condu": (*FINE_TUNED, images_trained(), texts_trained(all_classes=False),
              numbers("a mask of the weights for every task", lambda s: s.tasks * s.towers.parameters / 8, size=1),
              numbers("the unified change, and the change of a task", lambda s: 2 * s.towers.parameters)),
    "continual-clip": (class_vectors,),
    "coop": (*ON_FEATURES, texts_trained()),
    "derpp": (image_tower(COPY + GRADIENT), images_trained(3),
              numbers("stored logits (exemplars x C)", lambda s: s.exemplars * s.classes)),
    "diki": (class_covariances(), images_trained(), texts_trained(all_classes=False)),
    "dpw": (class_covariances(), images_trained(), texts_trained(all_classes=False)),
    "dualprompt": (_prompted_vision,),
    "engine": (class_vectors, features(), square("shared covariance", lambda s: s.towers.pooled, times=3),
               square("draws of descriptions by pairs of classes (C x C)", lambda s: s.classes, times=3, size=LONG),
               numbers("units of every task", lambda s: s.tasks * s.towers.width**2)),
    "er": (image_tower(COPY + GRADIENT), images_trained(2)),
    "finetune": (*FINE_TUNED, images_trained(), texts_trained(all_classes=False)),
    "icarl": (class_vectors, both_towers(TRAINED + COPY), images_trained(2), texts_trained(all_classes=False)),
    "icarl-nme": (image_tower(COPY + COPY + GRADIENT + MOMENTUM), images_trained()),
    "joint": (*FINE_TUNED, images_trained(), texts_trained()),
    "joint-prompts": (class_vectors, features(views=2, all_tasks=True), texts_trained()),
    "l2-wc": (class_vectors, both_towers(TRAINED + 1), images_trained(), texts_trained(all_classes=False)),
    "l2p": (_prompted_vision,),
    "lada": (class_vectors, images_trained(0.1),
             numbers("memory and mixtures of every class",
                     lambda s: 4 * s.classes * s.towers.width * (s.setting("units", 16) + s.setting("components", 4)))),
    "linear-probe": (features(pooled=True, all_tasks=True), numbers("weights", lambda s: 6 * s.classes * s.towers.pooled)),
    "lwf": (class_vectors, both_towers(TRAINED + COPY), images_trained(2), texts_trained(all_classes=False), features()),
    "lwf-vr": (class_vectors, both_towers(TRAINED + COPY), images_trained(2), texts_trained(all_classes=False), features()),
    "magmax": (class_vectors, image_tower(COPY + GRADIENT + ADAM + START + 1), images_trained()),
    "maple": (class_vectors, exemplar_pixels, images_trained(), texts_trained()),
    "mg-clip": (class_vectors, images_trained(), texts_trained(all_classes=False)),
    "moe-adapters": (images_trained(), texts_trained(all_classes=False),
                     numbers("class vectors of every router", lambda s: s.tasks * s.classes * s.towers.width)),
    "proof": (*ON_FEATURES, square("attention among texts and prototypes, image by image (B x (2 C)^2)",
                                   lambda s: 2 * s.classes * (2 * s.batch) ** 0.5, size=4),
              numbers("projections of every task", lambda s: 2 * s.tasks * s.towers.width**2)),
    "rail-dual": (class_vectors, features(), _kernel),
    "rail-primal": (class_vectors, features(), _ridge("expansion")),
    "ranpac": (features(pooled=True), _ridge("projection"), images_trained()),
    "rapf": (class_vectors, features(), class_covariances()),
    "simplecil": (features(pooled=True), numbers("prototypes", lambda s: s.classes * s.towers.pooled)),
    "slca": (image_tower(IMAGE_TOWER), images_trained(), class_covariances(pooled=True)),
    "star-prompt": (_prompted_vision, _mixtures, texts_trained(all_classes=False),
                    numbers("prompts of every class", lambda s: 4 * 2 * s.towers.image_layers * s.classes * s.towers.pooled)),
    "vpt": (*ON_FEATURES, texts_trained(times=lambda s: s.setting("n_draws", 10))),
    "we": (*AVERAGED, images_trained(), texts_trained(all_classes=False)),
    "wise-ft": (*FINE_TUNED, images_trained(), texts_trained(all_classes=False)),
    "zero-shot": (class_vectors,),
    "zscl": (*AVERAGED, images_trained(2), texts_trained(all_classes=False)),
    "zscl-minus": (*FINE_TUNED, images_trained(2), texts_trained(all_classes=False)),
    "zscl-star": (*AVERAGED, images_trained(2), texts_trained(all_classes=False)),
}  # fmt: skip


def terms_of(method: str, scale: Scale) -> list[Term] | None:
    """All of a run, the largest first; None for a method of which nothing is known."""
    own = SUMS.get(method)
    if own is None:
        return None
    found = [*always(scale), *(term for terms in own for term in terms(scale))]
    return sorted(found, key=lambda term: -term.bytes)
