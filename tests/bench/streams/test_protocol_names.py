"""Names of protocols: registered, of a family, with options; and what is said about the wrong ones."""

import pytest

from bench.commands import list as listing
from bench.commands.show import show
from bench.errors import BenchError
from bench.streams import names
from bench.streams.names import find
from bench.streams.options import options_of
from bench.system import registry
from tests.bench.system.test_registry import plugin  # noqa: F401


def complaint(name: str) -> str:
    with pytest.raises(BenchError) as caught:
        find(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_name_without_options_is_the_registered_protocol():
    assert find("mini60-6x10") is registry.load("protocol", "mini60-6x10")


def test_options_stand_in_one_order_and_idle_ones_disappear():
    given = "cifar100-10x10+budgeted+replay-free+order=natural"
    assert find(given).name == "cifar100-10x10+order=natural+replay-free+budgeted"
    assert find("cifar100-10x10+order=clap").name == "cifar100-10x10"
    assert find("cifar100-10x10+exemplars=2000-total").name == "cifar100-10x10"
    assert find("mini60-6x10+replay-free").name == "mini60-6x10"
    assert find("cifar100-10x10+budgeted+zscl+order=zscl").name == "cifar100-10x10+zscl+budgeted"


def test_options_change_what_they_say_and_nothing_else():
    plain, changed = find("cifar100-10x10"), find("cifar100-10x10+order=natural+replay-free+budgeted")
    assert [plan.labels[0] for plan in changed.tasks(3)] == list(range(0, 100, 10))
    assert (changed.exemplars, changed.budgeted, changed.fixed_order) == ("none", True, True)
    assert (plain.exemplars, plain.budgeted, plain.fixed_order) == ("2000 total", False, False)
    assert changed.templates_digest() == plain.templates_digest()
    assert (changed.version, changed.kind) == (plain.version, plain.kind)
    assert find("cifar100-10x10+exemplars=7-per-class").exemplars == "7/class"
    assert find("imagenet-r-10x20+exemplars=900-total").exemplars == "900 total"


def test_a_variant_is_another_papers_stream_and_takes_options_itself():
    zscl = find("cifar100-10x10+zscl")
    assert {plan.dataset for plan in zscl.tasks(0)} == {"cifar100-cil"}
    assert zscl.exemplars == "none"
    mixed = find("cifar100-10x10+zscl+order=clap")
    assert [plan.labels for plan in mixed.tasks(1)] == [plan.labels for plan in find("cifar100-10x10").tasks(1)]
    assert {plan.dataset for plan in mixed.tasks(0)} == {"cifar100-cil"}


def test_every_option_that_a_protocol_offers_is_understood():
    for name in registry.names("protocol"):
        for option in set(options_of(find(name))) - {'template="..."'}:  # its name is a digest
            asked = f"{name}+{option.replace('=N-', '=3-').replace('=K', '=1')}"
            assert find(asked).name == asked


def test_a_stream_cut_to_its_first_tasks_knows_nothing_of_later_ones():
    whole, cut = find("mini60-6x10"), find("mini60-6x10+validation=20%+tasks=2+replay-free")
    assert cut.name == "mini60-6x10+tasks=2+validation=20%" and list(cut.tasks(3)) == list(whole.tasks(3))[:2]
    assert cut.scenario(3).class_names == whole.scenario(3).class_names[:20] and cut.scenario(3).n_tasks == 2
    assert find("mini-mtil-order1+tasks=3").dataset_names(0) == find("mini-mtil-order1").dataset_names(0)[:3]
    assert find("mini60-6x10+tasks=6").name == "mini60-6x10"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mini60-6x10+tasks=7", "mini60-6x10: +tasks=7 asks for more tasks than there are (6)"),
        ("mini60-6x10+tasks=0", "unknown option +tasks=0 of mini60-6x10; known: "),
        ("cifar100-10x10+replay", "unknown option +replay of cifar100-10x10; known: +cgil, +zscl, +order=shuffled"),
        ("cifar100-10x10+exemplars=20", "unknown option +exemplars=20 of cifar100-10x10; known: "),
        ("cifar100-10x10+order=clip", "unknown order 'clip' of cifar100-10x10; known: shuffled, natural, clap, cgil, zscl"),
        ("mini60-6x10+order=zscl", "unknown order 'zscl' of mini60-6x10"),
        ("mtil-order1+order=natural", "unknown option +order=natural of mtil-order1"),
        ("cifar100-10x10+zscl+cgil", "+zscl and +cgil exclude each other"),
        ("cifar100-10x10+replay-free+exemplars=3-total", "+replay-free and +exemplars=3-total exclude each other"),
        ("cifar100-10x10+", "unknown option + of cifar100-10x10"),
        ("mini60-6x1", "unknown protocol 'mini60-6x1'; did you mean mini60-6x10"),
        ("mini60-b9-5x10", "did you mean mini60-b10-5x10? b9-5x10 makes 59 classes, there are 60"),
        ("cifra100-10x10", "unknown data set 'cifra100'; did you mean cifar100"),
        ("mini-mtil-order3", "unknown protocol 'mini-mtil-order3'; did you mean mini-mtil-order"),
    ],
)
def test_a_wrong_name_is_answered_in_one_line(name, message):
    assert message in complaint(name)


def test_names_that_cannot_be_right_are_seen_without_importing_anything():
    possible = ["mini60-6x10", "cifar100-5x20", "folder:x-2x3", "mini-cdcl+budgeted", "mini60-b10-5x10"]
    assert all(map(names.looks_possible, possible))
    assert not any(map(names.looks_possible, ["mini-cdlc", "all", "mtil"]))


FAMILY = """
    from bench.errors import BenchError
    from bench.streams.protocol import Protocol, one_task_per_dataset

    def family(name):
        "two-NAME: two data sets"
        if name == "two-none":
            raise BenchError("there is no data set none")
        if name.startswith("two-") or name == "mini60-10x6":
            return Protocol(name, "7", "task-incremental", "", one_task_per_dataset(["mini-letters", "mini-digits"]))
"""


def test_a_plugin_can_bring_a_family(plugin):  # noqa: F811
    plugin("[bench.protocol_families]\ntwo = novel:family\n", novel=FAMILY)
    assert find("two-parts").version == "7"
    assert names.looks_possible("two-parts")
    assert complaint("two-none") == "there is no data set none"
    assert find("mini60-10x6").kind == "class-incremental"  # built-in families come first


def test_a_broken_family_hides_no_protocol_and_is_named_where_none_is_found(plugin):  # noqa: F811
    plugin("[bench.protocol_families]\ntwo = novel:family\n", novel="raise RuntimeError('no licence')\ndef family(name): pass")
    assert find("mini60-10x6").name == "mini60-10x6"
    assert "'two' of package somebodys-plugin is broken: RuntimeError: no licence" in complaint("two-parts")


def test_pages_state_the_facts_of_a_protocol():
    page = show("mtil-order1")
    for wanted in ("task-incremental", "each among its own classes", "11, 1201 classes", "fixed", "none", "+budgeted"):
        assert wanted in page
    rows = {line.split()[0]: line for line in page.splitlines() if line.strip()}
    assert rows["sun397"].split()[:5] == ["sun397", "397", "87003", "21751", "2"]
    assert rows["fgvc-aircraft"].endswith("a photo of a {}, a type of aircraft.")
    page = show("cifar100-10x10")
    for wanted in ("2000 total", "clap: ", "and 17 more", "50000", "10000", "+zscl", "+replay-free", "+order=natural"):
        assert wanted in page
    assert "16 of every class" in show("mtil-order2-16shot")
    assert "as many training images as the first one has" in show("cifar100-5x20+budgeted")
    assert "order=natural" in show("mini60-12x5+order=natural").splitlines()[0]


def test_the_list_names_the_families_too():
    listed = listing.registered("protocols", "protocol")
    assert "<dataset>-<tasks>x<classes>" in listed and "folder:PATH" in listed
    assert "folder:PATH" not in listing.registered("datasets", "dataset")


def test_mtil_without_task_identity():
    found, known = find("mtil-order1-16shot+agnostic"), find("mtil-order1-16shot")
    assert (found.name, found.kind, found.label_space) == ("mtil-order1-16shot+agnostic", "task-agnostic", "seen")
    assert (found.shots, found.version, found.tasks(0)) == (known.shots, known.version, known.tasks(0))
    assert found.scenario(0).class_names == known.scenario(0).class_names and not found.scenario(0).names_known
    assert "+agnostic" in show("mtil-order1") and "all classes seen so far" in show("mini-mtil-order1+agnostic")
    assert find("mini-mtil-order1+budgeted+agnostic").name == "mini-mtil-order1+agnostic+budgeted"
    for name in ("mini60-6x10+agnostic", "mini-xtail-order1+agnostic"):  # it has no task identity to leave out
        assert "unknown option +agnostic" in complaint(name)
