"""`bench doctor`: is everything that runs rely on as it should be, and are their results whole?

What is wrong is mended on request where that loses nothing that a repeated command would not make again.
"""

from pathlib import Path

from bench.checks import environment, features, images
from bench.checks import results as results_of_runs
from bench.checks.diagnosis import Diagnosis
from bench.images.dataset import Folders


def examine(results: Path, folders: Folders, repair: bool = False) -> Diagnosis:
    """Environment, results and their images, feature store, in this order."""
    diagnosis = Diagnosis(repair=repair)
    environment.examine(results, folders, diagnosis)
    results_of_runs.examine(results, diagnosis)
    images.examine(results, folders, diagnosis)
    features.examine(folders.features, diagnosis)
    return diagnosis
