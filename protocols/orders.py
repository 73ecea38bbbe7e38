"""Orders in which the classes of a data set are learned, by name.

    shuffled   by a hash of the data set's name and the order seed: our own, and the default where no paper defines one
    natural    the data set's own label order
    clap       CLAP4CLIP, PILOT, PROOF: numpy's legacy generator, seed 1993 + order seed, shuffle of 0..n-1
    cgil       CGIL (mammoth's permute_classes): p = RandomState(s).permutation(n) maps an old label to its new one, so the
               i-th class learned is argsort(p)[i]; s = 1992, 1996, 1997 for the order seeds 0, 1, 2, and no others
    zscl       ZSCL's class-incremental program, also DER and DyTox: one list for each of four data sets
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from bench import BenchError, Order, class_incremental
from bench.streams.protocol import shuffled_labels
from protocols.datasets.data import class_order

CLAP_FIRST_SEED = 1993
CGIL_SEEDS = (1992, 1996, 1997)
ZSCL_LISTS = {
    "cifar100": "cifar100",
    "cifar100-cil": "cifar100",
    "imagenet": "imagenet1000",
    "imagenet100": "imagenet100",
    "imagenet100-cil": "imagenet100",
    "tiny-imagenet": "tinyimagenet",
}


def natural(n: int, order_seed: int) -> list[int]:
    """The labels as they are."""
    return list(range(n))


def clap(n: int, order_seed: int) -> list[int]:
    """CLAP4CLIP's order of n classes; the order seed is its run number."""
    if CLAP_FIRST_SEED + order_seed >= 2**32:
        raise BenchError(
            f"order seed {order_seed}: CLAP's class order exists for order seeds below {2**32 - CLAP_FIRST_SEED}; for larger "
            "ones add +order=shuffled to the protocol's name"
        )
    labels = np.arange(n)
    np.random.RandomState(CLAP_FIRST_SEED + order_seed).shuffle(labels)
    return labels.tolist()


def cgil(n: int, order_seed: int) -> Sequence[int]:
    """CGIL's order of n classes."""
    if order_seed >= len(CGIL_SEEDS):
        raise BenchError(
            f"order seed {order_seed}: CGIL's class order exists for order seeds 0, 1 and 2 only; for more orders add "
            "+order=shuffled to the protocol's name"
        )
    new_label = np.random.RandomState(CGIL_SEEDS[order_seed]).permutation(n)
    return np.argsort(new_label).tolist()


def zscl(dataset: str, order_seed: int) -> Sequence[int]:
    """ZSCL's order of a data set's classes."""
    return class_order(f"cil-{ZSCL_LISTS[dataset]}")


def class_orders(dataset: str, sizes: Sequence[int]) -> dict[str, Order]:
    """All orders of a data set's classes, as orders of a stream with tasks of these sizes."""
    n = sum(sizes)
    rules: dict[str, tuple[Callable[[int], Sequence[int]], str, bool]] = {
        "shuffled": (partial(shuffled_labels, dataset, n), "shuffled by the order seed, our own rule", False),
        "natural": (partial(natural, n), "the data set's own label order", True),
        "clap": (partial(clap, n), "CLAP4CLIP's and PILOT's: numpy's RandomState(1993 + order seed).shuffle", False),
        "cgil": (partial(cgil, n), "CGIL's: mammoth's permutation with seed 1992, 1996 or 1997 for order seed 0, 1 or 2", False),
    }
    if dataset in ZSCL_LISTS:
        rules["zscl"] = (partial(zscl, dataset), "ZSCL's one list for this data set, also DER's and DyTox's", True)
    return {
        name: Order(class_incremental(dataset, sizes, rule), summary, fixed)
        for name, (rule, summary, fixed) in rules.items()
    }
