"""The stored lists: complete, well formed, and what the rules they come from say."""

import json
import re

import numpy as np
import pytest

from bench.system import registry
from protocols.datasets import data

NAME_FILES = sorted(path.stem for path in (data.HERE / "class_names").glob("*.json"))
TEMPLATES = json.loads((data.HERE / "templates.json").read_text())
ORDERS = json.loads((data.HERE / "class_orders.json").read_text())
TWO_OF_A_NAME = {"imagenet"}  # OpenAI's list has "missile" and "sunglasses" twice


@pytest.mark.parametrize("name", NAME_FILES)
def test_class_names_have_a_source_and_no_stray_space(name):
    content = json.loads((data.HERE / "class_names" / f"{name}.json").read_text())
    assert content["version"] and content["source"]
    names = data.class_names(name)
    assert all(one == one.strip() and one for one in names)
    if name not in TWO_OF_A_NAME:
        assert len(set(names)) == len(names)
    if "wordnet_ids" in content:
        ids = data.wordnet_ids(name)
        assert len(ids) == len(set(ids)) == len(names) and all(re.fullmatch(r"n\d{8}", one) for one in ids)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_have_one_gap_and_differ(name):
    templates = data.templates(name)
    assert TEMPLATES[name]["version"] and TEMPLATES[name]["source"]
    assert all(template.count("{}") == 1 for template in templates) and len(set(templates)) == len(templates)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("cifar", 18, "a photo of a {}."),
        ("imagenet", 80, "a photo of a {}."),
        ("stanford-cars", 9, "a photo of a {}, a type of car."),
        ("eurosat", 3, "a centered satellite photo of {}."),
        ("birds", 2, "a photo of a {}, a type of bird."),
    ],
)
def test_template_sets_are_as_long_as_published_and_start_right(name, count, first):
    assert (len(data.templates(name)), data.templates(name)[0]) == (count, first)


def test_every_data_set_has_as_many_names_as_published():
    counts = {
        "cifar10": 10, "cifar100": 100, "cifar100-cil": 100, "tiny-imagenet": 200, "imagenet": 1000, "imagenet100": 100,
        "imagenet100-cil": 100, "imagenet100-attriclip": 100, "imagenet-r": 200, "imagenet-r-coda": 200, "cub200": 200,
        "cub200-clap": 200, "stanford-cars": 196, "eurosat": 10, "eurosat-coop": 10, "isic": 6, "resisc45": 45,
    }  # fmt: skip
    for name, classes in counts.items():
        assert len(registry.load("dataset", name).info.class_names) == classes, name


def test_class_orders_are_permutations():
    for name, content in ORDERS.items():
        assert content["version"] and content["source"]
        orders = content["orders"].values() if isinstance(content["orders"], dict) else [content["orders"]]
        for order in orders:
            assert sorted(order) == list(range(len(order))), name


@pytest.mark.parametrize("n", [100, 200])
def test_claps_orders_follow_its_rule(n):
    for run in ORDERS[f"clap-{n}"]["orders"]:
        expected = np.arange(n)
        np.random.RandomState(1993 + int(run.removeprefix("run"))).shuffle(expected)
        assert data.class_order(f"clap-{n}", run) == tuple(expected.tolist())


def test_cgils_orders_follow_its_rule_and_the_specifications_examples():
    for name, n in {"imagenet-r": 200, "cub200": 200, "cars196": 196, "eurosat": 10, "isic": 6, "cifar100": 100}.items():
        for seed in (1992, 1996, 1997):
            new_label = np.random.RandomState(seed).permutation(n)
            assert data.class_order(f"cgil-{name}", str(seed)) == tuple(np.argsort(new_label).tolist())
    assert data.class_order("cgil-eurosat", "1992") == (2, 7, 3, 6, 0, 5, 1, 9, 8, 4)
    assert data.class_order("cgil-cub200", "1992")[:5] == (1, 104, 168, 145, 54)
    assert data.class_order("cgil-isic", "1997") == (3, 4, 0, 2, 1, 5)


def test_zscls_cifar_order_is_the_usual_one():
    assert data.class_order("cil-cifar100")[:5] == (87, 0, 52, 58, 44)
    assert [len(data.class_order(f"cil-{name}")) for name in ("tinyimagenet", "imagenet100", "imagenet1000")] == [200, 100, 1000]
