"""Every data set's class names stand in the order of an independent source.

What is feared: two names exchanged. Every image of the two classes then has the other's name, or the classes are learned in
another order than the paper's; no shape, count or set of names shows it. So each list is compared position by position with
lists from other hands: those of the papers' own programs (independent_names/*.json, copied from them and not from this package),
torchvision's, open_clip's and timm's, and the order of sorted folders. Of ISIC's six there is CGIL's list only, of CIFAR-10 and
RESISC45 only the alphabet. A new data set has to name its source here, or say why there is none.
"""

import importlib.resources
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from torchvision import datasets

from bench.system import registry
from protocols.datasets import data
from protocols.datasets.eurosat import CLASSES as EUROSAT_FOLDERS
from protocols.datasets.sun397 import folder_of

FILES = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "independent_names").glob("*.json")}
SAME_WORDING = [(source, name) for source, content in FILES.items() for name in content["lists"] if source != "few_shot"]
TORCHVISION = {"mnist": datasets.MNIST, "flowers102": datasets.Flowers102}
# labels are the places of the sorted folders (or, for Aircraft and CIFAR, of the sorted names)
SORTED_FOLDERS = (
    "caltech101", "cifar10", "cifar100", "dtd", "eurosat", "fgvc-aircraft", "food101", "oxford-pets", "resisc45", "sun397",
)  # fmt: skip
WORDNET = (
    "imagenet", "imagenet100", "imagenet100-attriclip", "imagenet100-cil", "imagenet-r", "imagenet-r-coda", "tiny-imagenet",
)  # fmt: skip
SAME_NAMES_AS = {
    "cifar100-cil": "cifar100",
    "cub200": "cub200-clap",
    "imagenet100-attriclip-as-published": "imagenet100-attriclip",
    "dtd-coop": "dtd",
    "flowers102-coop": "flowers102",
}
# with CoOp's split files, under the names that few-shot programs give to the labels there
FEW_SHOT_NAMES = {name: f"{name}-coop" for name in ("caltech101", "food101", "oxford-pets", "stanford-cars", "sun397")}
XTAIL = {"eurosat-xtail": "eurosat-coop", "mnist-xtail": "mnist"}  # the same with words around each name
NO_SOURCE = dict.fromkeys(
    [name for name in registry.names("dataset") if name.startswith("mini")],
    "drawn by this package, under the names that its drawing functions are called by: nobody else has a list",
)

# -- names that are meant to be other words than those of the source ---------------------------------------------

CALTECH_WORDS = {  # CoOp's folder name -> MTIL's
    "face": "off-center face",
    "car side": "side of a car",
    "cougar body": "body of a cougar cat",
    "cougar face": "face of a cougar cat",
    "crocodile head": "head of a crocodile",
    "flamingo head": "head of a flamingo",
    "snoopy": "snoopy (cartoon beagle)",
    "yin yang": "yin and yang symbol",
}
VTAB_PARTS = ("resisc45", "dtd", "oxford-pets", "eurosat")  # the fifth, flowers, is not the first ten of its data set
VTAB_OTHER_NAME = {22}  # CLAP4CLIP says "staffordshire bull terrier" where the pets' third class is the American pit bull terrier
# AttriCLIP's names beside the wrong ids, as published: the two runs of its list that are shifted by one
ATTRICLIP_SHIFTED = {*range(69, 82), *range(95, 100)}
# ImageNet-R's names that are neither a WordNet synonym of the id nor OpenAI's name, but a part or the plural of one
RENDITIONS = {
    "cobra": "Indian cobra",
    "cocker spaniels": "Cocker Spaniel",
    "husky": "Siberian Husky",
    "lobster": "American lobster",
    "newt": "smooth newt",
}


def names_of(name: str) -> tuple[str, ...]:
    return registry.load("dataset", name).info.class_names


def plain(name: str) -> str:
    """Without case, signs and spaces.

    >>> plain("St. Bernard"), plain("jack-o'-lantern")
    ('stbernard', 'jackolantern')
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def words(name: str) -> list[str]:
    """Its words in any order: few-shot programs write "indoor jail" for "jail/indoor", "2012 Acura TL" for "Acura TL 2012"."""
    return sorted(re.split(r"[\s/_]+", name.lower()))


def differing(first: Sequence[object], second: Sequence[object]) -> list[tuple[int, object, object]]:
    """(position, one, other) where two lists differ; their lengths as well."""
    assert len(first) == len(second)
    return [(k, one, other) for k, (one, other) in enumerate(zip(first, second)) if one != other]


def test_every_data_set_has_a_source_or_a_reason_for_none():
    compared = {name for _, name in SAME_WORDING} | {*TORCHVISION, *SORTED_FOLDERS, *WORDNET, *SAME_NAMES_AS}
    compared |= {*FEW_SHOT_NAMES.values(), *XTAIL}
    assert compared | set(NO_SOURCE) == set(registry.names("dataset"))
    assert not compared & set(NO_SOURCE)


@pytest.mark.parametrize(("source", "name"), SAME_WORDING)
def test_the_names_are_those_of_the_papers_programs(source, name):
    """Underscores become spaces when a prompt is made, so they count as equal."""
    listed = [one.replace("_", " ") for one in FILES[source]["lists"][name]]
    ids = [one.split(" ")[0] for one in listed if re.match(r"n\d{8} ", one)]
    if ids:
        listed = [one.split(" ", 1)[1] for one in listed]
        assert differing(data.wordnet_ids(name), ids) == []
    assert differing(names_of(name), listed) == []


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_names_are_torchvisions(name):
    """One of the flowers has a sign of doubt there, which the papers leave out."""
    assert differing(names_of(name), [one.removesuffix("?") for one in TORCHVISION[name].classes]) == []


@pytest.mark.parametrize(("listed", "name"), FEW_SHOT_NAMES.items())
def test_names_of_coops_split_files_are_those_of_few_shot_programs(listed, name):
    assert differing(list(map(words, names_of(name))), list(map(words, FILES["few_shot"]["lists"][listed]))) == []


@pytest.mark.parametrize(("name", "other"), XTAIL.items())
def test_x_tail_puts_words_around_the_names_of_the_same_labels(name, other):
    pairs = list(zip(names_of(name), names_of(other), strict=True))
    assert len(pairs) == 10 and all(plain(short) in plain(long) for long, short in pairs)


@pytest.mark.parametrize("name", FILES["few_shot"]["lists"])
def test_the_names_mean_what_few_shot_programs_call_the_same_labels(name):
    own, listed = list(names_of(name)), list(FILES["few_shot"]["lists"][name])
    if name == "caltech101":  # without the second class of faces
        assert own.pop(1) == "centered face"
        listed = [CALTECH_WORDS.get(one, one) for one in listed]
    if name == "food101":  # they number them as the data set's own list does, ours are torchvision's sorted folders
        assert differing(own, listed) == [(16, "cheese plate", "cheesecake"), (17, "cheesecake", "cheese plate")]
        listed[16:18] = listed[17], listed[16]
    assert differing([words(one) for one in own], [words(one) for one in listed]) == []


@pytest.mark.parametrize("name", SORTED_FOLDERS)
def test_labels_follow_the_sorted_folders(name):
    """As torchvision and the papers' programs number them. A blank in a name is an underscore in its folder."""
    folders = {
        "caltech101": lambda: data.class_names("caltech101-folders"),
        "eurosat": lambda: EUROSAT_FOLDERS,
        "fgvc-aircraft": lambda: names_of(name),  # the lines of its file, which have blanks
        "sun397": lambda: [folder_of(one) for one in names_of(name)],
    }.get(name, lambda: [one.replace(" ", "_").lower() for one in names_of(name)])()
    assert differing(folders, sorted(folders)) == []


def test_the_folders_of_caltech_and_eurosat_are_those_of_the_names():
    own = [one for one in data.class_names("caltech101-folders") if one != "Faces_easy"]
    listed = FILES["few_shot"]["lists"]["caltech101"]
    assert [(a, b) for _, a, b in differing([plain(one) for one in own], [plain(one) for one in listed])] == [
        ("faces", "face"), ("leopards", "leopard"), ("motorbikes", "motorbike"), ("airplanes", "airplane")
    ]  # fmt: skip
    for folder, name in zip(EUROSAT_FOLDERS, names_of("eurosat-coop")):  # "SeaLake" and "Sea or Lake"
        assert set(words(re.sub(r"([a-z])([A-Z])", r"\1 \2", folder))) <= set(words(name)), folder


@pytest.mark.parametrize("name", WORDNET)
def test_every_name_is_one_of_its_wordnet_id(name):
    """A synonym of the id in WordNet (timm's list), or OpenAI's name of it (open_clip's list)."""
    files = importlib.resources.files("timm") / "data" / "_info"
    ids = (files / "imagenet_synsets.txt").read_text().split()
    lemmas = dict(line.split("\t") for line in (files / "imagenet_synset_to_lemma.txt").read_text().splitlines())
    openai = dict(zip(ids, IMAGENET_CLASSNAMES))
    strange = [
        (k, one, lemmas[own])
        for k, (one, own) in enumerate(zip(names_of(name), data.wordnet_ids(name)))
        if not {plain(one), plain(RENDITIONS.get(one, one))} & {plain(openai[own]), *map(plain, lemmas[own].split(", "))}
    ]
    assert strange == []


def test_the_ids_are_complete_and_in_the_order_of_the_sorted_folders():
    files = importlib.resources.files("timm") / "data" / "_info"
    every = (files / "imagenet_synsets.txt").read_text().split()
    of_renditions = (files / "imagenet_r_synsets.txt").read_text().split()
    assert differing(data.wordnet_ids("imagenet"), every) == []
    assert differing(names_of("imagenet"), IMAGENET_CLASSNAMES) == []
    assert differing(data.wordnet_ids("imagenet-r"), of_renditions) == []
    assert sorted(data.wordnet_ids("imagenet-r-coda")) == of_renditions
    assert list(data.wordnet_ids("imagenet100")) == list(data.wordnet_ids("imagenet100-cil")) == every[:100]
    assert data.wordnet_ids("imagenet100-attriclip") == data.wordnet_ids("imagenet100-attriclip-as-published")
    assert list(data.wordnet_ids("imagenet100-attriclip")) == sorted(data.wordnet_ids("imagenet100-attriclip"))


def test_lists_of_the_same_classes_agree():
    for name, other in SAME_NAMES_AS.items():
        found = differing([plain(one) for one in names_of(name)], [plain(one) for one in names_of(other)])
        shifted = ATTRICLIP_SHIFTED if name.endswith("as-published") else set()
        assert {k for k, _, _ in found} == shifted, name
    aware = names_of("cifar100-cil")
    assert any("_" in one for one in aware) and [one.replace("_", " ") for one in aware] == list(names_of("cifar100"))


def test_vtabs_parts_are_in_the_order_of_their_data_sets():
    """Each part's first ten classes; the last part's ten flowers are others, for which there is CLAP4CLIP's list alone."""
    own = names_of("vtab50")
    for part, name in enumerate(VTAB_PARTS):
        first = names_of(name)[:10]
        for k, one in enumerate(first, start=10 * part):
            assert (plain(own[k].removesuffix(" texture").removesuffix(" pet")) == plain(one)) == (k not in VTAB_OTHER_NAME), k
    flowers = {plain(one) for one in names_of("flowers102")}
    assert all(plain(one.removesuffix(" flower")) in flowers for one in own[40:])


def test_an_exchange_is_noticed():
    """What the comparison is for: SUN397 once had its jails exchanged."""
    exchanged = list(names_of("sun397"))
    k, other = exchanged.index("jail/indoor"), exchanged.index("jail cell")
    exchanged[k], exchanged[other] = exchanged[other], exchanged[k]
    assert [k for k, _, _ in differing(exchanged, FILES["mtil"]["lists"]["sun397"])] == [206, 207]
    folders = [folder_of(one) for one in exchanged]
    assert [k for k, _, _ in differing(folders, sorted(folders))] == [206, 207]
