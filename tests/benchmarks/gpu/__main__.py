"""The command of the campaign: see the package's docstring."""

import argparse
import sys
from pathlib import Path

from bench.errors import BenchError
from tests.benchmarks.gpu import tables
from tests.benchmarks.gpu.steps import Conditions, all_steps


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.gpu", description="Check and measure everything on a GPU.")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder of the campaign; the same one goes on with it")
    parser.add_argument("--minutes", type=float, default=9.0, help="no step begins that is not expected to end within them [9]")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu", "standin"), default="auto", help="[auto: cuda]")
    parser.add_argument("--size", choices=("small", "full"), help="of the work [full on cuda, else small]")
    parser.add_argument("--only", metavar="TEXT", help="steps whose name or group holds this")
    parser.add_argument("--cache", type=Path, help="generated images and features [DIR/cache]")
    parser.add_argument("--list", action="store_true", help="print the steps with their estimated seconds and do nothing")
    parser.add_argument("--show", choices=tables.NAMES, help="print a table of tests/benchmarks/measured/gpu and do nothing")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR/DEVICE", help="commit the tables of a device: copy them, renew the page"
    )
    chosen = parser.parse_args(arguments)
    if chosen.show:
        tables.show(chosen.show)
        return 0
    if chosen.keep:
        place = tables.keep(chosen.keep)
        tables.renew_page()
        print(f"{place} and docs/performance.md: commit both")
        return 0
    conditions = _conditions(chosen)
    if chosen.list:
        steps = all_steps(conditions)
        for step in steps:
            print(f"{step.group:<13} {step.seconds:5.0f} s  {step.name}")
        print(f"{len(steps)} steps, about {sum(step.seconds for step in steps) / 60:.0f} minutes")
        return 0
    if chosen.out is None:
        parser.error("-o DIR is wanted")

    from tests.benchmarks.gpu import campaign

    campaign.carry_out(
        conditions, chosen.out, chosen.minutes,
        wanted=lambda step: not chosen.only or chosen.only in step.name or chosen.only == step.group,
    )  # fmt: skip
    return 0


def _conditions(chosen: argparse.Namespace) -> Conditions:
    device = chosen.device
    if device in ("auto", "cuda"):
        import torch

        if not torch.cuda.is_available():
            raise BenchError("no usable CUDA device is here; --device cpu (or standin) proves that the campaign works")
        device = "cuda"
    size = chosen.size or ("full" if device == "cuda" else "small")
    cache = chosen.cache or (chosen.out or Path(".")) / "cache"
    return Conditions(device, size, cache.resolve())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted: what is done is kept, the same command continues", file=sys.stderr)
        sys.exit(130)
