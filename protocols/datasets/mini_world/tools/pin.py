"""Pin the pixels: `python -m protocols.datasets.mini_world.tools.pin` writes digests.json after a deliberate change."""

import json
from pathlib import Path

from protocols.datasets.mini_world import downstream


def main() -> None:
    """Draw every split and write its digest."""
    digests = {
        name: {split: downstream.digest(*downstream.draw(name, split)) for split in ("train", "test")}
        for name in downstream.DATASETS
    }
    Path(downstream.__file__).with_name("digests.json").write_text(json.dumps(digests, indent=2) + "\n")


if __name__ == "__main__":
    main()
