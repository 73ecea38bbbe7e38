"""The names of backbones, read from file names: nothing heavy is imported."""

from importlib.util import find_spec
from pathlib import Path


def architectures() -> list[str]:
    """"mini", then open_clip's architectures."""
    spec = find_spec("open_clip")
    folder = Path(spec.submodule_search_locations[0]) / "model_configs"
    return ["mini", *sorted(path.stem for path in folder.glob("*.json"))]
