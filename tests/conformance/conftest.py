"""Runs a conformance test once for every file of vectors that its method has.

    @pytest.mark.vectors("coop", "continual*")       # method, pattern of files (all by default)
    def test_...(vectors, tiny):
        ...
        vectors.check({"array": value, ...})

Files come from --vectors DIR, which defaults to the copy kept here; a method or file that is absent there is skipped. The
worst error / limit of each file is shown at the end of the session, that of every array with -v.
"""

import json
from fnmatch import fnmatchcase

import pytest

from tests.conformance.vectors import Vectors

CHECKED = pytest.StashKey[list[Vectors]]()


def pytest_configure(config):
    config.addinivalue_line("markers", "vectors(method, files='*'): run once for each of these files of conformance vectors")
    config.stash[CHECKED] = []


def pytest_generate_tests(metafunc):
    if "vectors" in metafunc.fixturenames:
        method, *patterns = next(metafunc.definition.iter_markers("vectors")).args
        files = vector_files(metafunc.config.getoption("vectors") / method, patterns or ["*"])
        metafunc.parametrize("vectors", files, indirect=True, ids=lambda place: place[1] if place[1] else "absent")


def vector_files(folder, patterns) -> list[tuple]:
    """(folder, file, facts) of each file in params.json; a single (folder, None, reason) when there is none."""
    index = folder / "params.json"
    if not index.exists():
        return [(folder, None, f"no vectors in {folder}")]
    listed = json.loads(index.read_text())["files"]
    chosen = [(folder, name, facts) for name, facts in listed.items() if any(fnmatchcase(name, p) for p in patterns)]
    return chosen or [(folder, None, f"{index} lists no file {' or '.join(patterns)}")]


@pytest.fixture
def vectors(request) -> Vectors:
    folder, name, facts = request.param
    if name is None:
        pytest.skip(facts)
    if not (folder / name).exists():
        pytest.skip(f"{folder / name} is absent")
    vectors = Vectors(folder / name, facts)
    request.config.stash[CHECKED].append(vectors)
    return vectors


def pytest_terminal_summary(terminalreporter, config):
    checked = [vectors for vectors in config.stash[CHECKED] if vectors.ratios]
    if not checked:
        return
    terminalreporter.section("conformance: largest error / limit")
    for vectors in checked:
        worst = max(vectors.ratios, key=vectors.ratios.get)
        file = f"{vectors.path.parent.name}/{vectors.path.name}"
        terminalreporter.line(f"{file}: {len(vectors.ratios)} arrays, worst {vectors.ratios[worst]:.3g} ({worst})")
        if config.get_verbosity() > 0:
            for name, ratio in sorted(vectors.ratios.items(), key=lambda item: -item[1]):
                terminalreporter.line(f"    {ratio:8.2g}  {name}")
