"""The command that repeats a run, from its records and manifest."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from bench.results.records import TOWERS
from bench.system import named_files


def command(run: Mapping[str, object], manifest: Mapping[str, Any], out: str | None = None) -> str:
    """The `bench run` line that gives this run again, ready for a shell.

    run: CONDITIONS and SEEDS of the records. manifest: what the run was given. It may be empty; then the device and the
    precision are left to the machine, and weights from a file can only be called by the file's name. Paths of weights are as
    the user gave them; a folder of images is called by its own name, as seen from the folder that it lies in. out: the results
    folder that the run lay in; None where nobody knows.

    >>> command({"protocol": "mini60-6x10", "method": "coop", "overrides": "epochs=3", "backbone": "mini",
    ...          "pretrained": "mini@4c90dd7e", "limits": "train=5", "order_seed": 0, "seed": 2}, {})
    'bench run --protocol mini60-6x10 --methods coop --order-seeds 0 --seeds 2 --set coop.epochs=3 --limit-train 5'
    """
    words = ["bench", "run", "--protocol", _protocol(run, manifest), "--methods", _method(run, manifest)]
    words += ["--order-seeds", run["order_seed"], "--seeds", run["seed"]]
    backbone = str(run["backbone"]).split(TOWERS)[0]  # a method brings the others
    if backbone != "mini":
        words += ["--backbone", backbone]
    if weights := _pretrained(str(run["pretrained"]), backbone, manifest):
        words += ["--pretrained", weights]
    identity = manifest.get("identity", {})
    if "device" in identity:
        precision = identity.get("precision", "float32")
        words += ["--device", identity["device"]]
        # what is left out is chosen by the machine: float32 on a CPU, but not on a GPU
        words += ["--precision", precision] if (identity["device"], precision) != ("cpu", "float32") else []
        words += ["--accelerate", identity["accelerate"]] if "accelerate" in identity else []
    for field, value in changed(str(run["overrides"]), identity.get("settings", {})):
        words += ["--set", f"{run['method']}.{field}={value}"]
    for limit in filter(None, str(run["limits"]).split(";")):
        name, _, value = limit.partition("=")
        if name == "validation":  # it stands in the protocol's name
            continue
        words += ["--data" if name == "data" else f"--limit-{name}", value]
    words += ["--out", out] if out is not None else []
    return shlex.join(map(str, words))


def _protocol(run: Mapping[str, object], manifest: Mapping[str, Any]) -> str:
    """Its name; templates of the user's, of which that has a digest, as they were given (bench/streams/names.py, from_anywhere).

    >>> _protocol({"protocol": "folder:pets-5x4+template=0123abcd"}, {"protocol_given": 'folder:/a/pets-5x4+template="a {}."'})
    'folder:pets-5x4+template="a {}."'
    """
    name = str(run["protocol"])
    _, begun, templates = str(manifest.get("protocol_given", "")).partition("+template=")
    return re.sub(r"\+template=[0-9a-f]{8}", "", name) + begun + templates if begun else name


def _method(run: Mapping[str, object], manifest: Mapping[str, Any]) -> object:
    """A registered name; or the file of a method that has none, as seen from the folder that it lies in."""
    source = manifest.get("source")
    target = source.get("target") if isinstance(source, Mapping) else None
    return f"./{target}" if isinstance(target, str) and ".py:" in target else run["method"]


def _pretrained(label: str, backbone: str, manifest: Mapping[str, Any]) -> str | None:
    """What to give as --pretrained; None for the backbone's own weights. The label in records (bench/runs/plan.py) is no
    argument."""
    if "pretrained" in manifest:
        return manifest["pretrained"]
    name = re.sub(r"@[0-9a-f]{8}$", "", label)
    return None if name == backbone else name


def changed(overrides: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(hyper-parameter, value as --set takes it) of "field=value;field=value".

    Where the settings of the run are known, a ";" inside a value does not split, and values are taken from them; but for files,
    of which they have digests.

    >>> list(changed("context_words=a;b;layers=(1, 2)", {"context_words": "a;b", "layers": [1, 2], "epochs": 5}))
    [('context_words', 'a;b'), ('layers', '1,2')]
    >>> list(changed("words=my/words.json@01234567", {"words": "sha256:0123456789abcdef"}))
    [('words', 'my/words.json')]
    """
    names = "|".join(map(re.escape, settings)) or r"\w+"
    for part in re.split(rf";(?=(?:{names})=)", overrides) if overrides else ():
        field, _, text = part.partition("=")
        value = settings.get(field, text)
        yield field, named_files.as_given(text) if named_files.is_digest(value) else _text(value)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
