"""The listed protocols have the facts of the papers: tasks, images, exemplars, templates, data sets."""

import pytest

from bench.errors import BenchError
from bench.results import published
from bench.streams.names import find
from bench.system import registry
from protocols import mtil

# protocol: (data set, classes of each task, train images, test images, exemplars, number of templates, the first)
CLASS_INCREMENTAL = {
    "cifar100-10x10": ("cifar100", [10] * 10, 50000, 10000, "2000 total", 18, "a photo of a {}."),
    "cifar100-10x10+zscl": ("cifar100-cil", [10] * 10, 50000, 10000, "none", 1, "a bad photo of a {}."),
    "cifar100-10x10+cgil": ("cifar100", [10] * 10, 50000, 10000, "none", 1, "a photo of a {}"),
    "cifar100-20x5": ("cifar100-cil", [5] * 20, 50000, 10000, "none", 1, "a bad photo of a {}."),
    "cifar100-50x2": ("cifar100-cil", [2] * 50, 50000, 10000, "none", 1, "a bad photo of a {}."),
    "tinyimagenet-b100-5x20": ("tiny-imagenet", [100] + [20] * 5, 100000, 10000, "none", 1, "a bad photo of a {}."),
    "tinyimagenet-b100-10x10": ("tiny-imagenet", [100] + [10] * 10, 100000, 10000, "none", 1, "a bad photo of a {}."),
    "tinyimagenet-b100-20x5": ("tiny-imagenet", [100] + [5] * 20, 100000, 10000, "none", 1, "a bad photo of a {}."),
    "imagenet100-10x10": ("imagenet100", [10] * 10, None, 5000, "20/class", 80, "a photo of a {}."),
    "imagenet100-10x10+zscl": ("imagenet100-cil", [10] * 10, None, 5000, "none", 1, "a good photo of a {}."),
    "imagenet100-attriclip-10x10": ("imagenet100-attriclip", [10] * 10, None, 5000, "none", 80, "a photo of a {}."),
    "imagenet100-b50-10x5": ("imagenet100-cil", [50] + [5] * 10, None, 5000, "none", 1, "a good photo of a {}."),
    "imagenet1000-10x100": ("imagenet", [100] * 10, 1281167, 50000, "none", 1, "a good photo of a {}."),
    "imagenet-r-10x20": ("imagenet-r", [20] * 10, 24000, 6000, "20/class", 80, "a photo of a {}."),
    "imagenet-r": ("imagenet-r-coda", [20] * 10, 24000, 6000, "none", 1, "a photo of a {}"),
    "cub200-10x20": ("cub200-clap", [20] * 10, 9430, 2358, "20/class", 2, "a photo of a {}, a type of bird."),
    "cub200": ("cub200", [20] * 10, 5994, 5794, "none", 1, "a photo of a {}"),
    "vtab-5x10": ("vtab50", [10] * 5, 1796, 8619, "20/class", 2, "a photo of a {}."),
    "cars196": ("stanford-cars", [20] * 9 + [16], 8144, 8041, "none", 1, "a photo of a {}"),
    "cars196-b16-9x20": ("stanford-cars", [16] + [20] * 9, 8144, 8041, "none", 9, "a photo of a {}, a type of car."),
    "eurosat": ("eurosat-coop", [2] * 5, 13500, 8100, "none", 1, "a photo of a {}"),
    "isic": ("isic", [2] * 3, None, None, "none", 1, "a photo of a {}"),
}


@pytest.mark.parametrize("name", CLASS_INCREMENTAL)
def test_class_incremental_protocols(name):
    dataset, sizes, train, test, exemplars, templates, first = CLASS_INCREMENTAL[name]
    protocol = find(name)
    plans, scenario, info = protocol.tasks(0), protocol.scenario(0), registry.load("dataset", dataset).info
    assert protocol.name == name
    assert protocol.kind == "class-incremental"
    assert {plan.dataset for plan in plans} == {dataset}
    assert [len(plan.labels) for plan in plans] == sizes
    assert sorted(label for plan in plans for label in plan.labels) == list(range(len(info.class_names)))
    assert (info.train_images, info.test_images) == (train, test)
    assert protocol.exemplars == exemplars
    assert {len(own) for own in scenario.templates} == {templates}
    assert {own[0] for own in scenario.templates} == {first}
    assert scenario.class_names[0] == info.class_names[plans[0].labels[0]]


# task: (train, test, classes, templates, first template)
MTIL = {
    "aircraft": (3334, 3333, 100, 2, "a photo of a {}, a type of aircraft."),
    "caltech101": (6941, 1736, 101, 34, "a photo of a {}."),
    "cifar100": (50000, 10000, 100, 18, "a photo of a {}."),
    "dtd": (1880, 1880, 47, 8, "a photo of a {} texture."),
    "eurosat": (21600, 5400, 10, 3, "a centered satellite photo of {}."),
    "flowers": (1020, 6149, 102, 1, "a photo of a {}, a type of flower."),
    "food": (75750, 25250, 101, 1, "a photo of a {}, a type of food."),
    "mnist": (60000, 10000, 10, 1, 'a photo of the number: "{}".'),
    "oxford-pet": (3680, 3669, 37, 1, "a photo of a {}, a type of pet."),
    "stanford-cars": (8144, 8041, 196, 9, "a photo of a {}, a type of car."),
    "sun397": (87003, 21751, 397, 2, "a photo of a {}."),
}


@pytest.mark.parametrize("order", ["order1", "order2"])
@pytest.mark.parametrize(("form", "shots"), [("", None), ("-16shot", 16), ("-5shot", 5)])
def test_mtil(order, form, shots):
    protocol = find(f"mtil-{order}{form}")
    assert (protocol.kind, protocol.fixed_order, protocol.shots, protocol.exemplars) == ("task-incremental", True, shots, "none")
    plans, scenario = protocol.tasks(0), protocol.scenario(0)
    assert {plan.name for plan in plans} == set(MTIL)
    assert len(scenario.class_names) == 1201
    for index, plan in enumerate(plans):
        info = registry.load("dataset", plan.dataset).info
        own = {templates for templates, task in zip(scenario.templates, scenario.task_of_class) if task == index}
        assert own == {info.templates}
        facts = (info.train_images, info.test_images, len(plan.labels), len(info.templates), info.templates[0])
        assert facts == MTIL[plan.name]
        assert list(plan.labels) == list(range(len(info.class_names)))


def test_mtil_orders_are_those_of_the_published_matrices():
    key = {name.replace("-", ""): name for name in mtil.DATASETS}
    listed = published.mtil_orders()
    for protocol, order in (("mtil-order1", "I"), ("mtil-order2", "II")):
        assert [plan.name for plan in find(protocol).tasks(0)] == [key[name.lower()] for name in listed[order]]


# task: (train, test, classes, the first name)
XTAIL = {
    "aircraft": (3334, 3333, 100, "707-320"),
    "caltech101": (4128, 2465, 100, "face"),
    "dtd": (2820, 1692, 47, "banded"),
    "eurosat": (13500, 8100, 10, "Annual Crop Land satellite location"),
    "flowers": (4093, 2463, 102, "pink primrose"),
    "food": (50500, 30300, 101, "apple pie"),
    "mnist": (60000, 10000, 10, 'number: "0 - zero"'),
    "oxford-pet": (2944, 3669, 37, "abyssinian"),
    "stanford-cars": (6509, 8041, 196, "2000 AM General Hummer SUV"),
    "sun397": (15880, 19850, 397, "abbey"),
}
XTAIL_FIRST_COLUMNS = {
    "order1": [0, 100, 200, 247, 257, 359, 460, 470, 507, 703],
    "order2": [0, 196, 296, 333, 434, 831, 841, 943, 990, 1090],
}


@pytest.mark.parametrize("order", ["order1", "order2"])
@pytest.mark.parametrize(("form", "shots"), [("", None), ("-16shot", 16)])
def test_xtail(order, form, shots):
    protocol = find(f"xtail-{order}{form}")
    assert (protocol.kind, protocol.fixed_order, protocol.shots, protocol.exemplars) == ("task-agnostic", True, shots, "none")
    assert protocol.shot_rule == "seed-0"
    plans, scenario = protocol.tasks(0), protocol.scenario(0)
    assert set(scenario.templates) == {("a photo of a {}.",)} and scenario.names_known
    assert [scenario.task_of_class.index(task) for task in range(10)] == XTAIL_FIRST_COLUMNS[order]
    assert len(scenario.class_names) == 1100
    for plan in plans:
        info = registry.load("dataset", plan.dataset).info
        assert (info.train_images, info.test_images, len(plan.labels), info.class_names[0]) == XTAIL[plan.name]


def test_the_names_that_two_data_sets_of_xtail_share():
    scenario = find("xtail-order1").scenario(0)
    places = [(first, c) for c, first in enumerate(scenario.namesakes()) if first != c]
    assert {scenario.class_names[c] for _, c in places} == {"lotus", "sunflower", "pizza", "pagoda"}
    assert {(first - 100, c) for first, c in places} == {(59, 257 + 77), (89, 257 + 53), (71, 359 + 76), (68, 703 + 262)}


def test_the_recipes_of_lada_name_the_tasks_of_xtail():
    lada = registry.load("method", "lada")
    for name in ("xtail-order1", "xtail-order2-16shot"):
        settings = lada.settings_for(name)
        assert set(dict(settings.epochs_of_task)) == set(XTAIL) and set(settings.whole_tasks) <= set(XTAIL)


def test_the_tasks_with_their_own_learning_rate_are_found_by_name():
    rates = dict(registry.load("method", "finetune").settings_for("mtil-order2-16shot").lr_of_task)
    assert set(rates) <= set(MTIL)


def test_cross_dataset_streams():
    forward, backward = find("cdcl-imagenet100-cifar100"), find("cdcl-cifar100-imagenet100")
    for protocol, names in ((forward, ["imagenet100", "cifar100"]), (backward, ["cifar100", "imagenet100"])):
        plans = protocol.tasks(0)
        assert [plan.dataset for plan in plans] == [names[0]] * 10 + [names[1]] * 10
        assert {len(plan.labels) for plan in plans} == {10}
        assert len({plan.name for plan in plans}) == 20
        assert (protocol.kind, protocol.exemplars) == ("class-incremental", "20/class")
        templates = protocol.scenario(0).templates
        assert [len(templates[0]), len(templates[-1])] == [{"imagenet100": 80, "cifar100": 18}[name] for name in names]
    other = find("cdcl-imagenet100-cifar100+attriclip")
    assert other.tasks(0)[0].dataset == "imagenet100-attriclip"
    published = find("cdcl-cifar100-imagenet100+attriclip-as-published+replay-free")
    assert (published.tasks(0)[-1].dataset, published.exemplars) == ("imagenet100-attriclip-as-published", "none")


def test_papers_that_differ_have_names_of_their_own():
    assert find("imagenet-r-10x20").tasks(0)[0].dataset != find("imagenet-r").tasks(0)[0].dataset
    assert find("cub200-10x20").tasks(0)[0].dataset != find("cub200").tasks(0)[0].dataset
    first, second = (find(f"imagenet100{which}-10x10").scenario(0).class_names for which in ("", "-attriclip"))
    assert set(first) != set(second)


def test_entries_say_what_their_protocols_are():
    for entry in registry.entries("protocol"):
        protocol = registry.load("protocol", entry.name)
        assert (entry.name, entry.summary, entry.broken) == (protocol.name, protocol.summary, "")
        assert protocol.version
        for variant in protocol.variants.values():
            assert len(variant.scenario(0).class_names) == len(protocol.scenario(0).class_names)


def test_the_version_of_a_data_set_is_in_those_of_its_protocols():
    """Finished runs are found again, and averaged, by the version of the protocol alone: what moves numbers has to move it."""
    moved = {"sun397": "2"}  # 1: labels 206 and 207 exchanged
    for name in registry.names("dataset"):
        assert registry.load("dataset", name).info.version == moved.get(name, "1")
    for name in registry.names("protocol"):
        for protocol in (find(name), *find(name).variants.values()):
            its_data_sets = {plan.dataset for plan in protocol.tasks(0)}
            assert protocol.version == ("2" if its_data_sets & set(moved) else "1"), name
    assert {name for name in registry.names("protocol") if find(name).version != "1"} == {
        f"mtil-order{order}{form}" for order in (1, 2) for form in ("", "-16shot", "-5shot")
    }
    assert (find("sun397-1x397").version, find("cifar100-5x20").version) == ("1.2", "1.1")


def test_all_published_class_incremental_and_mtil_streams_that_can_exist_do():
    absent = {  # other data sets, domain-incremental streams, or no stream of one kind
        "5-datasets", "cddb-domain-incremental", "core50-domain-incremental", "domainnet-domain-incremental",
        "imagenet-a-10x20", "omnibenchmark-10x30", "MTIL (any order)",
    }  # fmt: skip
    names = {name for name in published.load()["protocol"] if not name.startswith("odcl-cil")} - absent
    assert {find(name).name for name in names} == names
    for name in absent:
        with pytest.raises(BenchError):
            find(name)
