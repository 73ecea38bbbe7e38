"""Splits that are made by a rule rather than given by a list."""

import numpy as np

SEED = 42
TRAIN_SHARE = 0.8


def random_split(n: int) -> dict[str, np.ndarray]:
    """ZSCL's rule for data sets without a split: rows of "train" (80 %, rounded down) and "test", n in all.

    One torch.randperm(n) of a generator seeded with 42 decides, as torch.utils.data.random_split draws it; the rows come
    in the order drawn, train first. The permutation depends, in principle, on the torch version: the digest of the images,
    which results record, tells one split from another.
    """
    import torch

    order = torch.randperm(n, generator=torch.Generator().manual_seed(SEED)).numpy()
    return {"train": order[: int(TRAIN_SHARE * n)], "test": order[int(TRAIN_SHARE * n) :]}
