"""The command that repeats a run, from its records and manifest."""

import re
import shlex
from collections.abc import Mapping


def command(run: Mapping[str, object], manifest: Mapping) -> str:
    """The `bench run` line that gives this run again, ready for a shell.

    run: CONDITIONS and SEEDS of the records. manifest: may be empty; it knows the device, and the names of all
    hyper-parameters, with which the overrides are told apart even if a value contains ";".

    >>> command({"protocol": "mini60-6x10", "method": "coop", "overrides": "epochs=3", "backbone": "mini", "pretrained": "mini",
    ...          "limits": "train=5", "order_seed": 0, "seed": 2}, {})
    'bench run --protocol mini60-6x10 --methods coop --order-seeds 0 --seeds 2 --set coop.epochs=3 --limit-train 5'
    """
    words = ["bench", "run", "--protocol", run["protocol"], "--methods", run["method"]]
    words += ["--order-seeds", run["order_seed"], "--seeds", run["seed"]]
    if run["backbone"] != "mini":
        words += ["--backbone", run["backbone"]]
    if run["pretrained"] != run["backbone"]:
        words += ["--pretrained", run["pretrained"]]
    identity = manifest.get("identity", {})
    if "device" in identity:
        words += ["--device", identity["device"]]
    for assignment in assignments(str(run["overrides"]), identity.get("settings", {})):
        words += ["--set", f"{run['method']}.{assignment}"]
    for limit in filter(None, str(run["limits"]).split(";")):
        name, _, value = limit.partition("=")
        words += ["--data" if name == "data" else f"--limit-{name}", value]
    return shlex.join(map(str, words))


def assignments(overrides: str, fields: Mapping[str, object]) -> list[str]:
    """The parts of "field=value;field=value"; a ";" inside a value does not split where the fields are known.

    >>> assignments("context_words=a;b;epochs=3", {"context_words": "", "epochs": 5})
    ['context_words=a;b', 'epochs=3']
    """
    if not overrides:
        return []
    names = "|".join(map(re.escape, fields)) or r"\w+"
    return re.split(f";(?=(?:{names})=)", overrides)
