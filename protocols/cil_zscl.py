"""The class-incremental protocols of ZSCL (arXiv 2303.06628, program `cil`, derived from Continual-CLIP).

Common to them: one template, ZSCL's class names, one fixed class order for each data set, no exemplars, argmax over all
classes seen so far. "B-I" there is a first task of B classes and then tasks of I. Where CLAP4CLIP uses the same shape, the
plain name is CLAP4CLIP's form and ZSCL's is the option +zscl.

The authors' program crops test images at random as in training; here they are resized and cropped at the centre, as
everywhere in this package.
"""

from functools import partial

from protocols.class_incremental import protocol

# bump when a change of orders, names, templates or splits moves numbers
VERSION = "1"
SOURCE = "ZSCL, arXiv 2303.06628 and its code"
# CIFAR-100, TinyImageNet and ImageNet100 have their template from the data set; ImageNet's own are 80 others
IMAGENET_TEMPLATES = ("a good photo of a {}.",)
zscl_stream = partial(protocol, version=VERSION, order="zscl", source=SOURCE)


cifar100_10x10 = zscl_stream(
    name="cifar100-10x10+zscl",
    dataset="cifar100-cil",
    sizes=[10] * 10,
    summary="as ZSCL runs it: its class order, one template, underscores in class names, no exemplars",
)

cifar100_20x5 = zscl_stream(
    name="cifar100-20x5",
    dataset="cifar100-cil",
    sizes=[5] * 20,
    summary="CIFAR-100 in 20 tasks of 5 as ZSCL runs it",
)

cifar100_50x2 = zscl_stream(
    name="cifar100-50x2",
    dataset="cifar100-cil",
    sizes=[2] * 50,
    summary="CIFAR-100 in 50 tasks of 2 as ZSCL runs it",
)

tinyimagenet_b100_5x20 = zscl_stream(
    name="tinyimagenet-b100-5x20",
    dataset="tiny-imagenet",
    sizes=[100] + [20] * 5,
    summary='TinyImageNet, first 100 classes, then 5 tasks of 20: "5 steps" in ZSCL',
)

tinyimagenet_b100_10x10 = zscl_stream(
    name="tinyimagenet-b100-10x10",
    dataset="tiny-imagenet",
    sizes=[100] + [10] * 10,
    summary='TinyImageNet, first 100 classes, then 10 tasks of 10: "10 steps" in ZSCL',
)

tinyimagenet_b100_20x5 = zscl_stream(
    name="tinyimagenet-b100-20x5",
    dataset="tiny-imagenet",
    sizes=[100] + [5] * 20,
    summary='TinyImageNet, first 100 classes, then 20 tasks of 5: "20 steps" in ZSCL',
)

imagenet100_10x10 = zscl_stream(
    name="imagenet100-10x10+zscl",
    dataset="imagenet100-cil",
    sizes=[10] * 10,
    summary="as ZSCL runs it: its class order, one template, OpenAI's class names, no exemplars",
)

imagenet100_b50_10x5 = zscl_stream(
    name="imagenet100-b50-10x5",
    dataset="imagenet100-cil",
    sizes=[50] + [5] * 10,
    summary="the first 100 ImageNet classes, first 50, then 10 tasks of 5, as ZSCL runs it",
)

imagenet1000_10x100 = zscl_stream(
    name="imagenet1000-10x100",
    dataset="imagenet",
    sizes=[100] * 10,
    summary="ImageNet in 10 tasks of 100 as ZSCL runs it",
    templates=IMAGENET_TEMPLATES,
)
