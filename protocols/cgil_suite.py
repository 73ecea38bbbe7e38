"""The class-incremental suite of CGIL (arXiv 2407.15793), from the data sets of its framework, mammoth.

Common to them: no exemplars, argmax over all classes seen so far, accuracy as the mean over tasks, class order `cgil` (order
seeds 0, 1, 2 are the authors' seeds 1992, 1996, 1997), CGIL's template for classes that it has not learned. In the authors'
code zero-shot CLIP has other templates on two of the sets ("a photo of a {}." and "a centered satellite photo of {}."), so
compare its numbers with those printed there only after a look at the templates.

Names, splits and label orders are mammoth's: imagenet-r and cub200 are other streams than imagenet-r-10x20 and cub200-10x20.
"""

from functools import partial

from protocols.class_incremental import protocol

# bump when a change of orders, names, templates or splits moves numbers
VERSION = "1"
SOURCE = "CGIL, arXiv 2407.15793, and its framework mammoth"
TEMPLATES = ("a photo of a {}",)  # without a full stop, as in the authors' code
cgil_stream = partial(protocol, version=VERSION, order="cgil", templates=TEMPLATES, source=SOURCE)


imagenet_r = cgil_stream(
    name="imagenet-r",
    dataset="imagenet-r-coda",
    sizes=[20] * 10,
    summary="ImageNet-R in 10 tasks of 20 on the split of L2P and CODA-Prompt, as CGIL runs it",
)

cars196 = cgil_stream(
    name="cars196",
    dataset="stanford-cars",
    sizes=[20] * 9 + [16],
    summary="Stanford Cars in 9 tasks of 20 and a last one of 16, as CGIL runs it",
)

cub200 = cgil_stream(
    name="cub200",
    dataset="cub200",
    sizes=[20] * 10,
    summary="CUB-200 in 10 tasks of 20 on the official split, as CGIL runs it",
)

eurosat = cgil_stream(
    name="eurosat",
    dataset="eurosat-coop",
    sizes=[2] * 5,
    summary="EuroSAT in 5 tasks of 2 on CoOp's split, as CGIL runs it",
)

isic = cgil_stream(
    name="isic",
    dataset="isic",
    sizes=[2] * 3,
    summary="skin lesions in 3 tasks of 2, as CGIL runs it",
)

cifar100 = cgil_stream(
    name="cifar100-10x10+cgil",
    dataset="cifar100",
    sizes=[10] * 10,
    summary="as CGIL's framework has it (not in the paper): its class order, one template, no exemplars",
)
