"""Pin the pixels: `python -m protocols.datasets.mini_world.pin` writes digests.json after a deliberate change."""

import json
from pathlib import Path

from .downstream import DATASETS, digest, draw


def main() -> None:
    """Draw every split and write its digest."""
    digests = {name: {split: digest(*draw(name, split)) for split in ("train", "test")} for name in DATASETS}
    (Path(__file__).parent / "digests.json").write_text(json.dumps(digests, indent=2) + "\n")


if __name__ == "__main__":
    main()
