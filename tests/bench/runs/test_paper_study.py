"""The runs of a paper's table, with options before them."""

import pytest

from bench.errors import BenchError
from bench.results import paper_tables
from bench.runs import assignments, paper_study


def read(name, full=False, **asked):
    return paper_study.read(paper_tables.find(name), asked, full)


def set_to(*texts):
    return tuple(assignments.parse(text) for text in texts)


def test_the_study_is_the_papers_and_goes_to_a_folder_of_its_own():
    (part,) = read("zscl-table3").study.requests
    assert (part.backbone, part.pretrained, part.precision, part.order_seeds) == ("ViT-B-16", "openai", "float32", (0,))
    assert str(part.out) == "results/reproduce/zscl-table3" and not part.set
    assert read("clap-table1").study.requests[0].order_seeds == (0, 1, 2)


def test_on_stand_ins_training_is_short_unless_asked_otherwise():
    study = read("zscl-table3", data="synthetic")
    (part,) = study.study.requests
    assert str(part.out) == "results/reproduce/zscl-table3-synthetic"
    assert {"zscl", "lwf"} <= {one.method for one in part.set} and ("zscl", "iterations") in study.shortened
    assert not read("zscl-table3", full=True, data="synthetic").shortened and not read("zscl-table3").shortened
    mine = read("zscl-table3", data="synthetic", set=set_to("zscl.iterations=7"))
    assert [one.text for one in mine.study.requests[0].set if (one.method, one.field) == ("zscl", "iterations")] == ["7"]


def test_options_narrow_the_table_down():
    study = read("cca-cl-table", methods=("engine",), protocols=("cifar100-10x10", "imagenet100-10x10"))
    (part,) = study.study.requests  # engine has no row on ImageNet100
    assert (part.protocols, part.methods, part.order_seeds) == (("cifar100-10x10",), ("engine",), (4,))
    assert len(study.whole.requests) == 3
    assert read("clap-table1", order_seeds=(1,)).study.requests[0].order_seeds == (1,)


def test_another_backbone_has_other_weights():
    assert read("zscl-table3", backbone="mini").study.requests[0].pretrained is None
    assert read("zscl-table3", backbone="ViT-B-32", pretrained="openai").study.requests[0].pretrained == "openai"


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("zscl-table3", {"methods": ("zsclx",)}, "unknown method of zscl-table3 'zsclx'; did you mean zscl"),
        ("zscl-table3", {"protocols": ("mtil-order2",)}, "unknown protocol of zscl-table3"),
        ("zscl-table3", {"order_seeds": (1,)}, "--order-seeds 1 contradicts zscl-table3, which has order seeds 0"),
        ("zscl-table3", {"set": set_to("coop.epochs=1")}, "--set coop.epochs=1: unknown method of zscl-table3"),
        ("xtail-fullshot", {"set": set_to("lada.units=3")}, "--set lada.units=3 contradicts xtail-fullshot, which has it at"),
    ],
)
def test_what_contradicts_the_table_is_refused(name, asked, said):
    with pytest.raises(BenchError) as refused:
        read(name, **asked)
    assert str(refused.value).startswith(said)


def test_a_table_without_a_method_here_has_no_runs():
    assert not read("lora-loop-mtil").study.requests and not read("l2p-vit").study.requests
