"""The shell offers names where they may stand, and imports nothing heavy for it."""

import os
import subprocess
import sys

import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from bench.commands.main import COMMANDS, main
from bench.system import registry

VARIABLE = "_BENCH_COMPLETE"


def offered(*words: str) -> list[str]:
    """What is offered for the last of these words."""
    shell = BashComplete(main, {}, "bench", VARIABLE)
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_commands_and_options_are_offered():
    assert offered("") == sorted(COMMANDS)
    assert offered("data", "") == ["check", "embed", "get", "list"]
    assert offered("run", "--meth") == ["--methods"]
    assert offered("list", "me") == ["methods", "metrics"]


@pytest.mark.parametrize(
    "words", [("run", "--methods"), ("profile", "--methods"), ("tune",), ("reproduce", "zscl-table3", "--methods"), ("show",)]
)
def test_methods_are_offered(words):
    assert offered(*words, "zscl-")[:2] == ["zscl-minus", "zscl-star"]


def test_of_names_behind_commas_the_last_is_completed_and_none_is_offered_twice():
    assert offered("run", "--methods", "zscl-star,zscl-") == ["zscl-star,zscl-minus"]
    assert set(offered("run", "--methods", "")) == {*registry.names("method"), "all"}
    assert offered("run", "--protocol", "cub200,mini60") == ["cub200,mini60-6x10"]
    assert offered("run", "--methods", "coop", "--protocol", "mini-x") == ["mini-xtail-order1", "mini-xtail-order2"]


def test_names_of_every_kind_are_offered_where_they_are_shown_or_checked():
    assert {"mini60", "mini60-6x10"} <= set(offered("show", "mini60"))
    assert offered("show", "bwt") == ["bwt", "bwt_all_moments"]
    assert offered("show", "publ") == ["published"]
    assert offered("check", "cifar100-10") == ["cifar100-10x10"]
    assert offered("data", "get", "cub") == ["cub200", "cub200-clap"]
    assert offered("reproduce", "zscl") == ["zscl-order2", "zscl-table3"]


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete, FishComplete])
def test_every_shell_gets_its_script(shell):
    script = shell(main, {}, "bench", VARIABLE).source_template % {
        "complete_func": "_bench", "complete_var": VARIABLE, "prog_name": "bench",
    }  # fmt: skip
    assert VARIABLE in script and "bench" in script


def test_the_answer_imports_nothing_heavy():
    code = (
        "import sys\nfrom bench.commands.main import main\n"
        "try: main(prog_name='bench')\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    words = {"COMP_WORDS": "bench run --methods zscl-", "COMP_CWORD": "3", VARIABLE: "bash_complete"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | words)
    assert found.stdout.split() == ["plain,zscl-minus", "plain,zscl-star"]
    assert not set(found.stderr.split()) & {"torch", "pandas", "matplotlib"}
