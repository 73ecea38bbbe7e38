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
from types import ModuleType
from typing import Any

# (former package, package now): the modules that moved, "former=now" where the name changed too
_MOVED: dict[tuple[str, str], str] = {
    ("bench", "bench.system"): (
        "claims files interruption machine_memory=memory peak_memory phases prefetch=parallel "
        "randomness registry"
    ),
    ("bench", "bench.images"): (
        "dataset dataset_checks=complaints dataset_files=layouts downloads file_digests=digests "
        "image_files=files parquet_images=parquet safe_pickle=pickles synthetic=stand_ins"
    ),
    ("bench", "bench.clip"): (
        "architectures backbone mini_clip=mini precision pretrained=loading state_dicts text_tower "
        "torchscript towers=image_tower weight_folders=folders"
    ),
    ("bench", "bench.streams"): (
        "decoded features protocol protocol_names=names protocol_options=options "
        "reference_data=reference stream"
    ),
    ("bench", "bench.learning"): "batch_composition=test_batches evaluation method",
    ("bench", "bench.results"): (
        "accuracy calibration comparable groups metrics novelty published records samples "
        "values=run_table"
    ),
    ("bench", "bench.runs"): (
        "assignments checkpoint estimate facts failures launch local_pool plan runner slurm "
        "study=request worker"
    ),
    ("bench", "bench.runs.profiling"): "arithmetic=operations profiling=profile",
    ("bench", "bench.reports"): "compare costs formats ranking statistics table_rows=rows tables",
    ("bench", "bench.gate"): "baseline gate_report=report tolerance",
    ("bench", "bench.pictures"): "drawing=style figures plots series",
    ("bench", "bench.pictures.page"): "report=write reproduction",
    ("bench", "bench.checks"): (
        "contract=method dataset_contract=dataset doctor=environment doctor_results=results "
        "doctor_store=features promises protocol_contract=protocol"
    ),
    ("bench", "bench.commands"): (
        "check_command=check cli=main data_command=data listing=list new_package=new "
        "profile_command=profile run_command=run showing=show"
    ),
    ("methods.parts", "methods.proof"): "cross_modal_fusion",
    ("methods", "methods.bounds"): "joint joint_prompts linear_probe",
    ("methods.parts", "methods.cgil"): "alignment diffusion stacked vae",
    ("methods", "methods.clap"): "clap_attriclip clap_coop clap_maple clap_novi",
    ("methods.parts", "methods.clap"): "clap_head=head probabilistic_adapters=adapters visual_guided_attention",
    ("methods", "methods.closed_form"): "rail ranpac simplecil",
    ("methods.parts", "methods.closed_form"): "ridge",
    ("methods", "methods.fine_tuning"): "distilled_finetune finetune icarl lwf weight_space=weight_methods zscl",
    ("methods.parts", "methods.fine_tuning"): "distillation weight_space",
    ("methods", "methods.image_tower"): "icarl_nme rehearsal_buffer slca vision_finetune",
    ("methods.parts", "methods.image_tower"): "nearest_mean",
    ("methods.parts", "methods.moe_adapters"): (
        "alexnet_features domain_autoencoders domain_selection "
        "mixture_of_adapters=towers"
    ),
    ("methods.parts", "methods.shared"): (
        "batches generators image_classifier memory parallel_adapters prompt_ensemble prompts random_crops "
        "rehearsal schedules selection text_classifier training_pixels"
    ),
    ("methods.parts", "methods.star_prompt"): "class_keys semantic_residuals value_residual_towers",
    ("methods", "methods.text_prompts"): "attriclip clip_adapter cocoop coop maple variational_prompts",
    ("methods.parts", "methods.text_prompts"): "contexts_by_classes deep_prompts prompt_bank",
    ("methods", "methods.visual_prompts"): "coda_prompt dualprompt l2p prompted_vision",
    ("methods.parts", "methods.visual_prompts"): "prefix_attention",
    ("bench", "bench.results.foreign"): "accuracy_files accuracy_matrix",
}

# modules whose contents were divided: every place, the first one asked first
_DIVIDED: dict[str, tuple[str, ...]] = {
    "bench.importers": ("bench.results.foreign.mammoth", "bench.results.foreign.pycil"),
}

# packages that have the name of a former module -> the module that holds its contents
PACKAGES_NOW: dict[str, str] = {
    "bench.gate": "bench.gate.comparison",
    "methods.proof": "methods.proof.proof",
    "methods.cgil": "methods.cgil.cgil",
    "methods.clap": "methods.clap.clap",
    "methods.moe_adapters": "methods.moe_adapters.moe_adapters",
    "methods.star_prompt": "methods.star_prompt.star_prompt",
}


def _moved() -> dict[str, tuple[str, ...]]:
    """Former name of a module -> where its contents are now."""
    pairs = ((packages, name.partition("=")) for packages, names in _MOVED.items() for name in names.split())
    moved = {f"{before}.{name}": (f"{now}.{new or name}",) for (before, now), (name, _, new) in pairs}
    return moved | _DIVIDED


MOVED = _moved()


def install() -> None:
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(FormerNames())


def contents_of(package: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package: names of the module that was called so before."""

    def contents(name: str) -> Any:
        module = PACKAGES_NOW[package]
        # a submodule is asked for here before it is imported, and is no former name
        if name.startswith("__") or importlib.util.find_spec(f"{package}.{name}"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(module), name)
        warn(f"{package}.{name}", f"{module}.{name}")
        return found

    return contents


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
    def __init__(self, places: tuple[str, ...]):
        self.places = places
        self.own_spec: importlib.machinery.ModuleSpec | None = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        warn(spec.name, " and ".join(self.places))
        if len(self.places) > 1:
            return _Divided(spec.name, self.places)
        module = importlib.import_module(self.places[0])
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The import system has written the former name's spec into the module: its own one back."""
        if self.own_spec is not None:
            module.__spec__ = self.own_spec


class _Divided(ModuleType):
    """A former module whose contents lie in several now."""

    def __init__(self, name: str, places: tuple[str, ...]):
        super().__init__(name)
        self.__dict__["places"] = places

    def __getattr__(self, name: str) -> Any:
        for place in self.__dict__["places"]:
            module = importlib.import_module(place)
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def warn(former: str, now: str) -> None:
    """Shown where the import stands: frames of the import system in between are not counted by `warnings`."""
    warnings.warn(f"{former} is {now} now; the former name goes with the next release", DeprecationWarning, stacklevel=3)
