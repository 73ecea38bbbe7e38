"""From the name of a tool to what writes for it."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from bench.errors import BenchError, one_line
from bench.reports.export.content import collect

# name -> the module whose `write(runs, folder)` writes for it, the extra that brings its library
TOOLS = {
    "csv": ("csv_tables", ""),
    "mlflow": ("mlflow_store", "mlflow"),
    "tensorboard": ("tensorboard_events", "tensorboard"),
    "wandb-offline": ("wandb_offline", "wandb"),
}


def export(paths: Iterable[Path], tool: str, folder: Path) -> str:
    """Hand the finished runs at or below the paths on to a tool; a line that says what was done."""
    runs = collect(paths)
    module, extra = TOOLS[tool]
    write = import_module(f"bench.reports.export.{module}").write
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = write(runs, folder)
    except ImportError as error:
        if not extra:
            raise
        raise BenchError(
            f"--to {tool} needs a library that is not installed: pip install 'continual-clip-bench[{extra}]' ({one_line(error)})"
        ) from error
    except OSError as error:
        raise BenchError(f"{folder}: cannot be written ({one_line(error)}); name another folder with -o") from error
    except BenchError:
        raise
    except Exception as error:
        if not extra:
            raise
        raise BenchError(f"{folder}: {tool} could not write there ({type(error).__name__}: {one_line(error)})") from error
    return f"{folder}: {written} runs written, {len(runs) - written} there already"
