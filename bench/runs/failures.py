"""What is kept of a run that failed: failure.json in its folder, in place of the manifest of a finished run.

It holds every attempt that has failed with its traceback, the last one for reading in traceback.txt; when a later attempt
succeeds, the manifest takes them over. Whether a run is tried again depends on the last attempt. What its own code did (an
exception, a loss that is not finite, too little GPU memory) would happen again: such a run is left alone until it is asked for
with --retry-failed, or until the source of its method is another. What the machine did (a killed worker, a file that could not
be written) may be over: the same command tries again.
"""

import contextlib
import dataclasses
import json
import socket
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from bench.errors import RunFailure, one_line
from bench.system import registry
from bench.system.code_places import with_place
from bench.system.files import write_atomically
from bench.system.method_source import Source

if TYPE_CHECKING:
    from bench.runs.run import Run

Cause = Literal["run", "machine"]
Status = Literal["finished", "already finished", "running elsewhere", "failed"]  # how a run ended
# which other runs would end as this one did, before they could begin: none is known to, those of the protocol, or those of the
# method on the protocol
Scope = Literal["run", "protocol", "method"]


@dataclass(frozen=True)
class Failure:
    """One attempt that failed."""

    cause: Cause  # "run": its own code, it would happen again; "machine": something around it
    reason: str  # one line
    traceback: str = ""
    when: str = ""  # UTC
    host: str = ""


def of_error(run: "Run", error: BaseException) -> Failure:
    """The failure that an exception of the run's code is, with advice if there is any."""
    reason = str(error) if isinstance(error, RunFailure) else f"{type(error).__name__}: {one_line(error)}"
    reason = " ".join(reason.split())
    if memory := _advice(run, error):
        reason = f"{reason.split('. ')[0]}; {memory}"
    elif not isinstance(error, RunFailure):  # which says what to do; it is no mistake in a line
        reason = with_place(reason, error, registry.place_of_method(run.method_given))
    # half a character cannot be kept
    trace = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
    return _now("machine" if isinstance(error, OSError) else "run", reason, trace)


def of_machine(reason: str) -> Failure:
    """The failure of a worker that is gone: killed, out of time, lost with its machine."""
    return _now("machine", reason, "")


def _now(cause: Cause, reason: str, trace: str) -> Failure:
    return Failure(cause, reason, trace, datetime.now(UTC).isoformat(timespec="seconds"), socket.gethostname())


def _advice(run: "Run", error: BaseException) -> str:
    """Which option takes less memory, if memory is what was missing."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return f"try {' or '.join(_smaller(run))}"
    if isinstance(error, MemoryError):
        return "BENCH_IMAGE_MEMORY=0 keeps no decoded images in memory"
    return ""


def _smaller(run: "Run") -> list[str]:
    """Options that need less GPU memory, the one that changes least first."""
    options, settings = [], run.settings
    if settings.get("gradient_checkpointing") is False:
        options.append(f"--set {run.method}.gradient_checkpointing=true")
    if "accumulate" in settings:
        options.append(f"--set {run.method}.accumulate={settings['accumulate'] * 2}")
    for field, value in settings.items():
        if field.endswith("batch_size") and isinstance(value, int) and value > 1:
            options.append(f"--set {run.method}.{field}={value // 2} (now {value})")
    if run.precision == "float32":
        options.append("--precision bfloat16 (now float32)")
    return options or ["a GPU with more memory, or --device cpu"]


def record(run: "Run", failure: Failure) -> None:
    """Add an attempt to what is kept. Where nothing can be written, the run is merely unfinished."""
    source = registry.source_of_method(run.method_given)
    facts = {
        "run_id": run.run_id,
        "status": "failed",
        "label": run.label,
        "identity": run.identity,
        "overrides": run.overrides,
        "reason": failure.reason,
        "traceback": failure.traceback,
        "source": source.to_json() if source else None,
        "attempts": [dataclasses.asdict(one) for one in [*of(run), failure]],
    }
    with contextlib.suppress(OSError):
        write_atomically(run.files.failure, json.dumps(facts, indent=1))
        if failure.traceback:
            write_atomically(run.files.traceback, failure.traceback)
        else:
            run.files.traceback.unlink(missing_ok=True)


def of(run: "Run") -> list[Failure]:
    """The attempts that failed, the last one last; none if the record cannot be read."""
    return _read(run)[0]


def _read(run: "Run") -> tuple[list[Failure], Source | None]:
    """The attempts, and the source of the method in the last one."""
    try:
        facts = json.loads(run.files.failure.read_text())
        return [Failure(**attempt) for attempt in facts["attempts"]], Source.from_json(facts.get("source"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [], None


def lasting(run: "Run") -> Failure | None:
    """The failure because of which the run is left alone until --retry-failed: of its own code, which is still the same."""
    attempts, source = _read(run) if run.files.failure.exists() else ([], None)
    if not attempts or attempts[-1].cause != "run":
        return None
    if source and registry.changes_since(run.method_given, source):
        return None
    return attempts[-1]


def forget(run: "Run") -> None:
    run.files.failure.unlink(missing_ok=True)
    run.files.traceback.unlink(missing_ok=True)
