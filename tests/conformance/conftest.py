"""Runs a conformance test once for every file of vectors that its method has.

    @pytest.mark.vectors("coop", "continual*")       # directory, patterns of files (all by default)
    def test_...(vectors, tiny):
        ...
        vectors.check({"array": value, ...})

`methods=("lwf", "lwf-vr")` in the mark names the methods that are compared, where that is not the directory's name.

Files come from --vectors DIR, which defaults to the copy kept here; a method or file that is absent there is skipped. At the
end of the session stand the worst error / limit of each file (of every array with -v), what was skipped and why, and the methods
of the set that no test reads. --write-errors FILE stores the worst errors; those of the copy kept here ship with the package.
Of the copy kept here, what takes long and of which the quick tests compare a part (a shorter stream in test_other_sets.py, the
other precision, the other layout) is marked thorough. Vectors that are given are all compared.

That a set is read at all, and every file of a method that has a test, is test_sets.py's concern.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from tests.conformance import measured, sets
from tests.conformance.vectors import Vectors
from tests.conftest import OWN_VECTORS

CHECKED = pytest.StashKey[list[Vectors]]()
LONG = (  # seconds of processor time
    "test_zscl_and_its_parts_in_task_incremental_form[zscl.npz]",  # 40
    "test_class_incremental_form[zscl_cil.npz]",  # 15
    "test_diki[vectors.npz-float64]",  # 15
    "test_dpw[vectors.npz-float64]",  # 14
    "test_dpw[vectors.npz-float32]",  # 7
    "test_dpw[reduced.npz-float64]",  # 3
    "test_condu[condu.npz-float64]",  # 11
    "test_interpolated_weights[wise-ft.npz]",  # 9
    "test_learning_without_forgetting[lwf.npz]",  # 9
    "test_training_and_merging[magmax.npz-float64]",  # 7
    "test_l2p[vectors.npz]",  # 7
    "test_dualprompt[vectors_correct_layout.npz]",  # 7
    "test_dualprompt[vectors_port_layout.npz]",  # 6
    "test_coda_prompt[vectors.npz]",  # 5
    "test_coda_prompt[vectors_ortho.npz]",  # 5
    "test_both_steps_and_scores_over_tasks[cil.npz-float64]",  # 4
    "test_the_search_for_the_number_of_epochs[epochs.npz-float64]",  # 4
    "test_cca_cl[cca-cl.npz-float64]",  # 3
    "test_coleclip[coleclip.npz-float64]",  # 3
    "test_slca[vectors.npz-float64]",  # 3
    "test_a_stream_without_the_last_classes_of_the_fixture[condu/condu.npz]",  # 5
    "test_icarl_on_stored_images[icarl.npz]",  # 5
    "test_a_stream_without_the_last_classes_of_the_fixture[cca-cl/cca-cl.npz]",  # 2
    "test_icarl_with_nearest_mean[vectors.npz]",  # 6
    "test_a_head_with_more_classes_than_the_tasks_have[coda-prompt]",  # 3
    "test_a_head_with_more_classes_than_the_tasks_have[l2p]",  # 4
    "test_a_head_with_more_classes_than_the_tasks_have[dualprompt]",  # 4
    "test_tasks_of_other_sizes_and_orders_and_a_class_of_one_image[l2p-train_index-train_label-per_class0]",  # 6
)


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "vectors(directory, *files, methods=(directory,)): run once for each of these files of conformance vectors"
    )
    config.stash[CHECKED] = []


def pytest_collection_modifyitems(config, items):
    if config.getoption("vectors") == OWN_VECTORS and not config.getoption("write_errors"):
        for item in items:
            if item.name in LONG and "conformance" in item.path.parts:
                item.add_marker(pytest.mark.thorough)


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
    listed = sets.files_of(index).items()
    chosen = [(folder, name, facts) for name, facts in listed if any(fnmatchcase(name, p) for p in patterns)]
    return chosen or [(folder, None, f"{index} lists no file {' or '.join(patterns)}")]


@pytest.fixture
def vectors(request) -> Vectors:
    folder, name, facts = request.param
    if name is None:
        pytest.skip(facts)
    if not (folder / name).exists():
        pytest.skip(f"{folder / name} is absent")
    mark = request.node.get_closest_marker("vectors")
    vectors = Vectors(folder / name, facts, sets.compared_methods(*mark.args, **mark.kwargs))
    request.config.stash[CHECKED].append(vectors)
    return vectors


def pytest_terminal_summary(terminalreporter, config):
    checked = [vectors for vectors in config.stash[CHECKED] if vectors.ratios]
    if checked:
        terminalreporter.section("conformance: largest error / limit")
    for vectors in checked:
        worst = max(vectors.ratios, key=vectors.ratios.get)
        file = f"{vectors.path.parent.name}/{vectors.path.name}"
        terminalreporter.line(f"{file}: {len(vectors.ratios)} arrays, worst {vectors.ratios[worst]:.3g} ({worst})")
        if config.get_verbosity() > 0:
            for name, ratio in sorted(vectors.ratios.items(), key=lambda item: -item[1]):
                terminalreporter.line(f"    {ratio:8.2g}  {name}")
    if config.getoption("write_errors"):
        measured.store(config.getoption("write_errors"), checked)
    left_out = list(not_compared(terminalreporter, config))
    if left_out:
        terminalreporter.section("conformance: not compared")
    for line in left_out:
        terminalreporter.line(line)


def not_compared(terminalreporter, config) -> Iterator[str]:
    """A line for each test that had no vectors and, where vectors were compared, for each method of the set without a test."""
    for report in terminalreporter.getreports("skipped"):
        if report.nodeid.startswith("tests/conformance/"):
            yield f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}"
    if config.stash[CHECKED]:
        for index in sets.indices(config.getoption("vectors")):
            if index.parent.name not in {reader.method for reader in sets.every_reader()}:
                yield f"{index.parent}: no test reads vectors of {index.parent.name}"
