"""The class-incremental protocols of CLAP4CLIP (arXiv 2403.19137), and of papers that use the same streams.

Common to them: argmax over all classes seen so far, exemplars, the class order `clap`; the authors report runs 0, 1, 2.
CIFAR-100 has 2000 exemplars in all, floor(2000 / classes seen) of each; the others 20 of every class. Templates are the data
sets' own here (CIFAR's 18, ImageNet's 80, two for birds, two for VTAB). The paper's resource-constrained settings are
the options +replay-free (its Table 16) and +budgeted (Table 17: every task gets the iterations of one epoch on the first).
"""

from protocols import cgil_suite, cil_zscl
from protocols.class_incremental import protocol

# bump when a change of orders, budgets, templates or splits moves numbers
VERSION = "1"
SOURCE = "CLAP4CLIP, arXiv 2403.19137 and its code"

cifar100_10x10 = protocol(
    name="cifar100-10x10",
    dataset="cifar100",
    sizes=[10] * 10,
    version=VERSION,
    summary="CIFAR-100 in 10 tasks of 10 as CLAP4CLIP runs it: 2000 exemplars, 18 templates",
    order="clap",
    exemplars_total=2000,
    source=SOURCE,
    variants={"cgil": cgil_suite.cifar100, "zscl": cil_zscl.cifar100_10x10},
)

imagenet100_10x10 = protocol(
    name="imagenet100-10x10",
    dataset="imagenet100",
    sizes=[10] * 10,
    version=VERSION,
    summary="the first 100 ImageNet classes in 10 tasks of 10 as CLAP4CLIP runs it: 20 exemplars a class, 80 templates",
    order="clap",
    exemplars_per_class=20,
    source=SOURCE + " (compiled modules left there: their sources are not public)",
    variants={"zscl": cil_zscl.imagenet100_10x10},
)

imagenet100_attriclip_10x10 = protocol(
    name="imagenet100-attriclip-10x10",
    dataset="imagenet100-attriclip",
    sizes=[10] * 10,
    version=VERSION,
    summary="AttriCLIP's list of 100 ImageNet classes in 10 tasks of 10: another list than imagenet100-10x10",
    order="natural",
    source="AttriCLIP, arXiv 2305.11488; its class order on ImageNet is not stated, its CIFAR-100 loader uses the labels' own",
)

imagenet_r_10x20 = protocol(
    name="imagenet-r-10x20",
    dataset="imagenet-r",
    sizes=[20] * 10,
    version=VERSION,
    summary="ImageNet-R in 10 tasks of 20 on CLAP4CLIP's own file split, which is not the split of imagenet-r",
    order="clap",
    exemplars_per_class=20,
    source=SOURCE,
)

cub200_10x20 = protocol(
    name="cub200-10x20",
    dataset="cub200-clap",
    sizes=[20] * 10,
    version=VERSION,
    summary="CUB-200 in 10 tasks of 20 on RevisitingCIL's copy (9430 / 2358 images), which is not the split of cub200",
    order="clap",
    exemplars_per_class=20,
    source=SOURCE,
)

vtab_5x10 = protocol(
    name="vtab-5x10",
    dataset="vtab50",
    sizes=[10] * 5,
    version=VERSION,
    summary="RESISC45, DTD, Pets, EuroSAT and Flowers, ten classes of each, one data set a task",
    order="natural",
    exemplars_per_class=20,
    source=SOURCE,
)

cars196_b16_9x20 = protocol(
    name="cars196-b16-9x20",
    dataset="stanford-cars",
    sizes=[16] + [20] * 9,
    version=VERSION,
    summary="Stanford Cars, first 16 classes, then 9 tasks of 20, as RanPAC and PILOT run it; cars196 is CGIL's",
    order="clap",
    source="RanPAC, arXiv 2307.02251, and PILOT, whose only order is that of order seed 0",
)
