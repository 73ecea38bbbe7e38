"""The process that carries out steps. Whatever a step does to it, an error of a driver or a crash, the campaign goes on with a
new one; and it is kept from step to step, since importing torch and starting a GPU take as long as a small step."""

import contextlib
import os
import threading
import time
from importlib.metadata import version
from multiprocessing.connection import Connection

from bench.errors import one_line
from bench.system.processor import cpu_model
from tests.benchmarks.gpu.kept import Machine
from tests.benchmarks.gpu.steps import Conditions, NotApplicable, found_by

LINE = 300  # characters of a reason


def serve(connection: Connection, conditions: Conditions, source: str) -> None:
    """Answer names of steps until nobody asks any more: (status, reason, rows, seconds)."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        connection.send(machine(conditions))
        steps = {step.name: step for step in found_by(source, conditions)}
        while True:
            name = connection.recv()
            started = time.perf_counter()
            try:
                with _device(conditions):
                    found = "done", "", [dict(row) for row in steps[name].work(conditions)]
            except NotApplicable as reason:
                found = "not applicable", str(reason), []
            except (Exception, SystemExit) as error:
                found = "failed", f"{type(error).__name__}: {one_line(error)}"[:LINE], []
            connection.send((*found, time.perf_counter() - started))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass


def machine(conditions: Conditions) -> Machine:
    """Without importing torch where that is not needed: a step may be small, and a process may have to be started again."""
    if conditions.device == "cuda":
        import torch

        device = torch.cuda.get_device_name()
    else:
        device = {"cpu": "CPU ", "standin": "stand-in device on CPU "}[conditions.device] + cpu_model()
    return Machine(device, version("torch").split("+")[0], conditions.size)


def _device(conditions: Conditions) -> contextlib.AbstractContextManager[object]:
    if conditions.device != "standin":
        return contextlib.nullcontext()
    from tests.stand_in_device.device import stand_in_device

    return stand_in_device()


def _end_with(parent: int) -> None:
    """A campaign that was killed leaves nobody behind who goes on computing on the device."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
