"""What has to be right before anything is measured: the tests that need CUDA, and every method beside itself on the CPU.

A method's step is what tests/bench/runs/test_methods_on_a_gpu.py checks, called here: fifty processes of pytest would spend
most of nine minutes on importing torch. The other tests run as they are, a process for each file.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from bench.system import registry
from tests.bench.runs import test_methods_on_a_gpu as methods_on_a_gpu
from tests.benchmarks.gpu.steps import Conditions, Rows, Step

ROOT = Path(__file__).parents[3]
# measured by steps of their own, method by method
APART = ("tests/bench/runs/test_methods_on_a_gpu.py", "tests/benchmarks/test_pixel_methods.py")
LIMIT = 400  # seconds of a file of tests


def steps(conditions: Conditions) -> list[Step]:
    of_tests = 40 if conditions.device == "cuda" else 0
    files = [Step(f"tests {name}", "correctness", "tests", of_tests, partial(tests_of, name)) for name in files_with_cuda_tests()]
    seconds = 4 if conditions.small else 6
    methods = [
        Step(f"stopped and resumed {name}", "correctness", "methods", seconds, partial(stopped_and_resumed, name))
        for name in registry.names("method")
    ]
    return [*files, *methods]


def files_with_cuda_tests() -> list[str]:
    """Files with tests marked cuda, as seen from the root."""
    found = (path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in path.read_text())
    return [name for path in found if (name := path.relative_to(ROOT).as_posix()) not in APART]


def stopped_and_resumed(name: str, conditions: Conditions) -> Rows:
    """A run of the method, stopped in its second task and resumed, beside a whole one on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        found = methods_on_a_gpu.difference(name, Path(folder), conditions.cache, conditions.device)
    if not found < methods_on_a_gpu.APART:
        raise AssertionError(f"mean accuracy is {found:.3f} away from that on the CPU, at most {methods_on_a_gpu.APART} may be")
    return [{"method": name, "mean accuracy differs by": f"{found:.4f}", "at most": str(methods_on_a_gpu.APART)}]


def tests_of(name: str, conditions: Conditions) -> Rows:
    """The tests of a file that are marked cuda, in a process of pytest."""
    conditions.only_on_cuda("its tests are of that device alone")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", name, "-m", "cuda", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
        if not report.exists():
            raise AssertionError(f"pytest ended with code {done.returncode}: {(done.stdout + done.stderr).strip()[-200:]}")
        return outcomes(name, ElementTree.parse(report).getroot())


def outcomes(name: str, report: ElementTree.Element) -> Rows:
    """A row of how many tests passed; AssertionError where some failed, or where none was carried out."""
    cases = list(report.iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    if bad:
        first = next(part for tag in ("failure", "error") if (part := bad[0].find(tag)) is not None)
        raise AssertionError(f"{len(bad)} of {len(cases)} failed; {bad[0].get('name')}: {first.get('message', '')}")
    if len(skipped) == len(cases):
        reasons = {part.get("message", "") for case in skipped if (part := case.find("skipped")) is not None}
        raise AssertionError(f"none of {len(cases)} was carried out: {', '.join(sorted(reasons))}")
    return [{"tests": name, "passed": str(len(cases) - len(skipped)), "skipped": str(len(skipped))}]
