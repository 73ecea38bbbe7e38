"""Speed-ups that may be adopted: each beside the plain path, with a look at whether both come to the same.

A candidate that does not is no failure of its step: "equal" says so in its row. On a GPU two plain runs differ as well, where
kernels add up in no fixed order: a run is compared with what two plain ones differ by.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from bench.clip import acceleration
from bench.clip import backbone as backbones
from bench.results import records
from bench.runs import accelerators, launch
from bench.runs.profiling.operations import clock
from bench.runs.run import Run
from bench.system.phases import recorded
from bench.system.randomness import Draws
from methods.cgil.cgil import CGILSettings
from methods.cgil.vae import VAEs
from tests.benchmarks.gpu.measurements import folders, short_run
from tests.benchmarks.gpu.steps import Conditions, NotApplicable, Rows, Step
from tests.benchmarks.measuring import first_steps_only
from tests.benchmarks.side_by_side import fastest_of

COMPILED = ("coop", "cgil", "finetune", "zscl", "maple", "l2p", "slca", "moe-adapters", "joint-prompts", "vpt")
COMPILED_SMALL = ("coop", "cgil")  # a compiler of C++ takes its time
GRAPHED = (("cgil", ""), ("cgil", "generator=diffusion"), ("joint-prompts", ""))
OF_SCORES, OF_ACCURACY = (
    0.01,
    0.02,
)  # of the largest energy of a test image, and of the mean accuracy: that two runs may differ by
OF_OUTPUTS = 1e-3  # of the largest entry: by one pass in a half type, or some steps in float32
NOISE = 3.0  # times that of two plain runs


def steps(conditions: Conditions) -> list[Step]:
    small = conditions.small
    compiled, seconds = (COMPILED_SMALL, 60) if small else (COMPILED, 90)
    return [
        *(Step(f"fused {name}", "candidates", "candidates", 2 if small else 10, partial(fused, name)) for name in OPTIMISERS),
        Step("channels last", "candidates", "candidates", 3 if small else 20, channels_last),
        Step("graphs generators", "candidates", "candidates", 0 if small else 40, graphed_generators),
        *(Step(" ".join(filter(None, ("graphs", *one))), "candidates", "candidates", 0 if small else 40, partial(graphed, *one))
          for one in GRAPHED),
        *(Step(f"compile {name}", "candidates", "candidates", seconds, partial(compiled_run, name)) for name in compiled),
    ]  # fmt: skip


def row(what: str, candidate: str, before: float, after: float, difference: float, limit: float, **more: str) -> dict[str, str]:
    return {
        "what": what,
        "candidate": candidate,
        "seconds plain": f"{before:.3g}",
        "seconds with it": f"{after:.3g}",
        "times faster": f"{before / after:.2f}",
        "difference": f"{difference:.1e}",
        "at most": f"{limit:.1e}",
        "equal": "yes" if difference <= limit else "NO",
        "first time (s)": "",
    } | more


def apart(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, of the largest entry."""
    return float((ours.float() - wanted.float()).abs().max() / wanted.float().abs().max())


# -- whole runs: --accelerate ------------------------------------------------------------------------------------


def compiled_run(method: str, conditions: Conditions) -> Rows:
    if conditions.device == "standin":
        raise NotApplicable("torch.compile does not know the stand-in device")
    accelerators.refuse_without_compiler("compile", conditions.device)
    return beside_plain(method, "", "compile", conditions)


def graphed(method: str, change: str, conditions: Conditions) -> Rows:
    conditions.only_on_cuda("CUDA graphs")
    return beside_plain(method, change, "graphs", conditions)


def beside_plain(method: str, change: str, accelerate: str, conditions: Conditions) -> Rows:
    """The same run twice plainly and twice accelerated, its loops cut short: the second ones are timed, for in the first
    everything is loaded, compiled or recorded."""
    tower = "mini" if conditions.small else "ViT-B-16"
    seconds, scores = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn, how in enumerate(("none", "none", accelerate, accelerate)):
            run = short_run(method, tower, conditions, Path(folder) / str(turn), accelerate=how, change=change)
            with first_steps_only(3 if conditions.small else 30), recorded(lambda: clock(torch.device(run.device))) as spent:
                outcome = launch.carry_out(run, folders(conditions))
            if outcome.status != "finished":
                raise AssertionError(f"--accelerate {how}: {outcome.reason}")
            seconds.append(spent.spent["train"])
            scores.append(_scores(run))
        calls = records.read_manifest(run.folder)["accelerated"]["calls"]
    if not calls:
        raise AssertionError(f"nothing of {method} is accelerated by {accelerate}")
    noise, found = _difference(scores[1], scores[0]), _difference(scores[3], scores[0])
    limit = max(OF_SCORES, NOISE * noise)
    what = f"training of {method}{f' with {change}' if change else ''}, {tower}, {run.precision}"
    more = {"first time (s)": f"{seconds[2]:.3g}", "two plain runs": f"{noise:.1e}", "calls": str(calls)}
    return [row(what, f"--accelerate {accelerate}", seconds[1], seconds[3], found, limit, **more)]


def _scores(run: Run) -> dict[str, torch.Tensor]:
    """Energies of all test images; the accuracies as one more entry."""
    stored = load_file(run.files.samples)
    energies = {name: value for name, value in stored.items() if name.startswith("energy/")}
    accuracies = records.read_csv(run.files.records)["value"].astype(float)
    return energies | {"accuracy": torch.tensor([accuracies.mean()])}


def _difference(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """In the unit of OF_SCORES; that of accuracies counts by its own limit."""
    accuracy = float((ours["accuracy"] - wanted["accuracy"]).abs()) * OF_SCORES / OF_ACCURACY
    return max(accuracy, *(apart(ours[name], wanted[name]) for name in wanted if name != "accuracy"))


# -- single pieces ----------------------------------------------------------------------------------------------


def graphed_generators(conditions: Conditions) -> Rows:
    """The auto-encoders of a task of CIFAR-100's: 10 classes, 500 features of each."""
    conditions.only_on_cuda("CUDA graphs")
    device, settings = torch.device(conditions.device), CGILSettings()
    features = list(torch.randn(10, 500, 512, generator=torch.Generator().manual_seed(0)).to(device))
    found = {}

    def fit(by: str) -> None:
        with acceleration.accelerated(by):
            models = VAEs(512, settings.vae_hidden, settings.vae_latent, 20, settings.vae_lr, settings.vae_batch).to(device)
            models.fit(list(range(10)), features, Draws("benchmark", "cgil", 0), lambda loss, what: None)
        found[by] = models.decoders

    taken = fastest_of({by: lambda by=by: fit(by) for by in ("none", "graphs")}, 2, device)
    what = "auto-encoders of 10 classes x 500 features x 512, 20 epochs"
    return [row(what, "CUDA graphs", *taken.values(), apart(found["graphs"], found["none"]), OF_OUTPUTS)]


def channels_last(conditions: Conditions) -> Rows:
    """A forward and a backward pass of the image tower on pixels of either layout, weights of its convolution likewise."""
    tower, batch = ("mini", 8) if conditions.small else ("ViT-B-16", 64)
    backbone = backbones.load(tower, None if tower == "mini" else "none", conditions.device)
    size = backbone.image_size
    pixels = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(backbone.device)
    layouts = {"plain": torch.contiguous_format, "channels last": torch.channels_last}
    works: dict[str, Callable[[], None]] = {}
    results: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, layout in layouts.items():
        visual = backbone.trainable_copy().visual.to(memory_format=layout)
        own = pixels.contiguous(memory_format=layout)
        works[name] = partial(_pass, visual, own, name, results)
    works["plain"]()
    taken = fastest_of(works, 3, backbone.device)
    difference = max(map(apart, results["channels last"], results["plain"]))
    limit = OF_OUTPUTS if backbone.precision == "float32" else 10 * OF_OUTPUTS
    what = f"image tower of {tower}, forward and backward, batch {batch}, {backbone.precision}"
    return [row(what, "channels_last", *taken.values(), difference, limit)]


def _pass(
    visual: torch.nn.Module, pixels: torch.Tensor, name: str, results: dict[str, tuple[torch.Tensor, torch.Tensor]]
) -> None:
    visual.zero_grad()
    features = visual(pixels)
    features.square().mean().backward()
    gradient = next(parameter.grad for parameter in visual.parameters() if parameter.dim() == 4)  # of the convolution
    results[name] = features.detach(), gradient


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": partial(torch.optim.AdamW, lr=1e-5, weight_decay=0.1),
    "SGD": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-4),
}


def fused(name: str, conditions: Conditions) -> Rows:
    """Steps of an optimiser on all weights of a CLIP: as torch chooses it, and fused into one kernel."""
    tower, count = ("mini", 5) if conditions.small else ("ViT-B-16", 20)
    backbone = backbones.load(tower, None if tower == "mini" else "none", conditions.device)
    generator = torch.Generator().manual_seed(0)
    start = [weight.detach() for weight in backbone.clip.parameters()]
    gradients = [torch.randn(weight.shape, generator=generator).to(weight.device) for weight in start]
    ended: dict[str, torch.Tensor] = {}

    def descend(how: str, **options: bool) -> None:
        weights = [torch.nn.Parameter(weight.clone()) for weight in start]
        optimiser = OPTIMISERS[name](weights, **options)
        for _ in range(count):
            for weight, gradient in zip(weights, gradients):
                weight.grad = gradient
            optimiser.step()
        ended[how] = torch.cat([(weight.detach() - before).flatten() for weight, before in zip(weights, start)])

    works = {"plain": partial(descend, "plain"), "fused": partial(descend, "fused", fused=True)}
    works["plain"]()
    taken = fastest_of(works, 2, backbone.device)
    what = f"{count} steps of {name} on the weights of {tower}"
    return [row(what, "fused", *taken.values(), apart(ended["fused"], ended["plain"]), OF_OUTPUTS)]
