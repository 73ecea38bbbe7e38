"""Modules under the names that they had before: for one release they can be imported so, with a warning that names the new place.

A former name gives the very module that it stands for, so that an object has one class under both names, and what a test
replaces in the one is replaced in the other. The names are asked only when nothing lies under them any more: this finder is
the last in line. Where a former module's name is that of a package now, its contents are found through the package
(`contents_of`).
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# (former package, package now): the modules that moved, "former=now" where the name changed too
_MOVED: dict[tuple[str, str], str] = {
    ("bench", "bench.system"): (
        "claims files interruption machine_memory=memory peak_memory phases prefetch=parallel "
        "randomness registry"
    ),
    ("bench", "bench.images"): (
        "dataset_checks=complaints downloads file_digests=digests parquet_images=parquet safe_pickle=pickles "
        "synthetic=stand_ins"
    ),
    ("bench", "bench.clip"): (
        "architectures backbone mini_clip=mini precision pretrained=loading state_dicts text_tower "
        "torchscript towers=image_tower weight_folders=folders"
    ),
    ("bench", "bench.streams"): "decoded features protocol_names=names protocol_options=options",
    ("bench", "bench"): "reference=shipped",
    ("bench", "bench.learning"): "batch_composition=test_batches evaluation method",
    ("bench", "bench.results"): "accuracy calibration novelty published records samples",
    ("bench", "bench.runs"): "assignments checkpoint estimate launch local_pool plan runner slurm study=request worker",
    ("bench", "bench.runs.profiling"): "arithmetic=operations profiling=profile",
    ("bench", "bench.reports"): "costs ranking statistics tables",
    ("bench", "bench.gate"): "baseline gate_report=report tolerance",
    ("bench", "bench.pictures"): "drawing=style figures plots series",
    ("bench", "bench.pictures.page"): "reproduction",
    ("bench", "bench.checks"): "doctor_results=results doctor_store=features promises",
    ("bench", "bench.commands"): "listing=list new_package=new profile_command=profile showing=show",
    ("methods.parts", "methods.proof"): "cross_modal_fusion",
    ("methods", "methods.bounds"): "joint joint_prompts linear_probe",
    ("methods.parts", "methods.cgil"): "alignment diffusion stacked vae",
    ("methods", "methods.clap"): "clap_attriclip clap_coop clap_maple clap_novi",
    ("methods.parts", "methods.clap"): "clap_head=head probabilistic_adapters=adapters",
    ("methods", "methods.closed_form"): "rail ranpac simplecil",
    ("methods.parts", "methods.closed_form"): "ridge",
    ("methods", "methods.fine_tuning"): "distilled_finetune finetune icarl lwf weight_space=weight_methods zscl",
    ("methods.parts", "methods.fine_tuning"): "weight_space",
    ("methods", "methods.image_tower"): "icarl_nme rehearsal_buffer slca vision_finetune",
    ("methods.parts", "methods.moe_adapters"): (
        "alexnet_features domain_autoencoders domain_selection "
        "mixture_of_adapters=towers"
    ),
    ("methods.parts", "methods.shared"): (
        "batches generators memory parallel_adapters prompt_ensemble prompts rehearsal schedules selection"
    ),
    ("methods.parts", "methods.star_prompt"): "class_keys semantic_residuals value_residual_towers",
    ("methods", "methods.text_prompts"): "attriclip clip_adapter cocoop coop maple variational_prompts",
    ("methods.parts", "methods.text_prompts"): "contexts_by_classes deep_prompts prompt_bank",
    ("methods", "methods.visual_prompts"): "coda_prompt dualprompt l2p prompted_vision",
    ("methods.parts", "methods.visual_prompts"): "prefix_attention",
    ("bench", "bench.results.foreign"): "accuracy_files",
}

# modules whose contents were divided or renamed: every place, the first one asked first; "old=new" for what has another name
_DIVIDED = {
    "bench.accuracy_matrix": "bench.results.foreign.accuracy_matrix bench.reports.foreign_metrics",
    "bench.check_command": "bench.commands.check run=check",
    "bench.cli": (
        "bench.commands.main bench.commands.results bench.commands.options list_=bench.commands.list:list_command "
        "show=bench.commands.show:show_command check=bench.commands.check:check_command doctor=bench.commands.check:doctor "
        "new=bench.commands.new:new_command run=bench.commands.run:run_command data_=bench.commands.data:data_command "
        "profile=bench.commands.profile:profile_command"
    ),
    "bench.comparable": "bench.results.groups sets=comparable",
    "bench.compare": "bench.reports.compare bench.reports.pairing",
    "bench.contract": "bench.checks.method Bench=Trial",
    "bench.data_command": "bench.commands.data bench.checks.official bench.checks.diagnosis",
    "bench.dataset": "bench.images.dataset bench.images.sources bench.images.folders",
    "bench.dataset_contract": "bench.checks.dataset Bench=Trial",
    "bench.dataset_files": "bench.images.layouts bench.images.dataset",
    "bench.doctor": "bench.checks.doctor bench.checks.diagnosis bench.checks.environment",
    "bench.facts": "bench.runs.facts bench.runs.questions bench.runs.helper",
    "bench.failures": "bench.runs.failures FILE=bench.results.run_folder:FAILURE",
    "bench.formats": "bench.reports.formats Cell=TableCell",
    "bench.groups": (
        "bench.results.groups bench.results.loaded Entry=MethodRuns build=arranged slug=bench.pictures.file_names:slug"
    ),
    "bench.image_files": "bench.images.files bench.system.parallel",
    "bench.importers": "bench.results.foreign.mammoth bench.results.foreign.pycil",
    "bench.metrics": "bench.results.metrics bench.results.run_data",
    "bench.protocol": "bench.streams.protocol bench.streams.sources few_shots=bench.streams.shots:few_shots",
    "bench.protocol_contract": "bench.checks.protocol Bench=Trial",
    "bench.reference_data": "bench.streams.reference bench.streams.reference_sources",
    "bench.report": "bench.pictures.page.write Run=ListedRun",
    "bench.run_command": "bench.commands.run bench.commands.options",
    "bench.stream": "bench.streams.stream bench.streams.scenario",
    "bench.table_rows": (
        "bench.reports.rows bench.results.groups bench.results.samples Row=bench.results.groups:MethodRuns "
        "groups=bench.results.groups:comparable"
    ),
    "bench.values": "bench.results.run_table bench.results.conditions bench.reports.formats",
    "methods.parts.distillation": "methods.fine_tuning.distilled_finetune",
    "methods.parts.image_classifier": "methods.shared.classifiers",
    "methods.parts.nearest_mean": "methods.image_tower.icarl_nme",
    "methods.parts.parallel_adapters": "methods.shared.parallel_adapters",
    "methods.parts.random_crops": "methods.shared.pixels",
    "methods.parts.text_classifier": "methods.shared.classifiers",
    "methods.parts.training_pixels": "methods.shared.pixels",
    "methods.parts.visual_guided_attention": "methods.clap.head",
    "protocols.datasets.mini_world.pretraining": "protocols.datasets.mini_world.mixture",
    "protocols.datasets.mini_world.pretrain": "protocols.datasets.mini_world.tools.pretrain",
    "protocols.datasets.mini_world.evaluate": "protocols.datasets.mini_world.tools.evaluate",
    "protocols.datasets.mini_world.pin": "protocols.datasets.mini_world.tools.pin",
}

# packages that have the name of a former module -> the module that holds its contents
_PACKAGES = {
    "bench.gate": "bench.gate.comparison bench.gate.changes Outcome=bench.gate.changes:Comparison",
    "methods.proof": "methods.proof.proof",
    "methods.cgil": "methods.cgil.cgil",
    "methods.clap": "methods.clap.clap methods.clap.settings",
    "methods.moe_adapters": "methods.moe_adapters.moe_adapters methods.moe_adapters.settings",
    "methods.star_prompt": "methods.star_prompt.star_prompt",
}


@dataclass(frozen=True)
class Places:
    """Where the contents of a former module are: modules in the order in which they are asked, and names that changed."""

    modules: tuple[str, ...]
    renamed: dict[str, str]  # former name -> module:name now

    @classmethod
    def read(cls, text: str) -> "Places":
        modules = tuple(word for word in text.split() if "=" not in word)
        pairs = [word.split("=") for word in text.split() if "=" in word]
        return cls(modules, {old: new if ":" in new else f"{modules[0]}:{new}" for old, new in pairs})

    def find(self, name: str) -> Any:
        if name in self.renamed:
            module, _, new = self.renamed[name].partition(":")
            return getattr(importlib.import_module(module), new)
        for place in self.modules:
            module_now = importlib.import_module(place)
            if hasattr(module_now, name):
                return getattr(module_now, name)
        raise AttributeError(name)


def _moved() -> dict[str, Places]:
    """Former name of a module -> where its contents are now."""
    pairs = ((packages, name.partition("=")) for packages, names in _MOVED.items() for name in names.split())
    moved = {f"{before}.{name}": Places((f"{now}.{new or name}",), {}) for (before, now), (name, _, new) in pairs}
    return moved | {name: Places.read(text) for name, text in _DIVIDED.items()}


MOVED = _moved()
PACKAGES_NOW = {name: Places.read(text) for name, text in _PACKAGES.items()}


def install() -> None:
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(FormerNames())


def contents_of(package: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package: names of the module that was called so before."""

    def contents(name: str) -> Any:
        places = PACKAGES_NOW[package]
        # a submodule is asked for here before it is imported, and is no former name
        if name.startswith("__") or importlib.util.find_spec(f"{package}.{name}"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = places.find(name)
        warn(f"{package}.{name}", " or ".join(places.modules))
        return found

    return contents


def called(former: str, now: str) -> Callable[..., Any]:
    """A function that was a method before. It is found by its name, since modules above may not be imported from below."""
    warn(former, now.replace(":", "."), level=4)
    module, _, name = now.partition(":")
    return getattr(importlib.import_module(module), name)


class FormerNames(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name == "methods.parts":
            return importlib.machinery.ModuleSpec(name, _Empty(), is_package=True)
        return importlib.machinery.ModuleSpec(name, _Former(MOVED[name])) if name in MOVED else None


class _Empty(importlib.abc.Loader):
    """A package that has nothing but modules with former names."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Former(importlib.abc.Loader):
    def __init__(self, places: Places):
        self.places = places
        self.own_spec: importlib.machinery.ModuleSpec | None = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        warn(spec.name, " and ".join(self.places.modules))
        if len(self.places.modules) > 1 or self.places.renamed:
            return _Divided(spec.name, self.places)
        module = importlib.import_module(self.places.modules[0])
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The import system has written the former name's spec into the module: its own one back."""
        if self.own_spec is not None:
            module.__spec__ = self.own_spec


class _Divided(ModuleType):
    """A former module whose contents lie in several now."""

    def __init__(self, name: str, places: Places):
        super().__init__(name)
        self.__dict__["places"] = places

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["places"].find(name)
        except AttributeError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None


def warn(former: str, now: str, level: int = 3) -> None:
    """Shown where the import stands: frames of the import system in between are not counted by `warnings`."""
    warnings.warn(f"{former} is {now} now; the former name goes with the next release", DeprecationWarning, stacklevel=level)
