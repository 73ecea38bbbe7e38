"""The names that `from bench import ...` gives, and where each is defined.

The imports for type checkers in bench/__init__.py say the same; tests/test_face.py compares them.
"""

_PUBLIC = {
    "bench.clip.backbone": "Backbone",
    "bench.commands.notebook": "results run table",
    "bench.errors": "BenchError RunFailure UnfitMethod one_line unknown_name",
    "bench.images.dataset": "Copy Dataset DatasetInfo Layout",
    "bench.images.downloads": "HubFiles RemoteFile",
    "bench.images.files": "ImageFiles",
    "bench.images.folders": "Folders",
    "bench.images.layouts": "dataset_on_disk",
    "bench.images.parquet": "parquet_images",
    "bench.images.sources": "ImageSource",
    "bench.learning.method": "Method",
    "bench.learning.settings": "Choices Range setting",
    "bench.learning.test_batches": "Composition TestBatches",
    "bench.runs.trained_model": "TrainedModel load",
    "bench.streams.protocol": "Order Protocol TaskPlan class_incremental one_task_per_dataset",
    "bench.streams.reference": "Reference",
    "bench.streams.reference_sources": "ReferenceNames",
    "bench.streams.scenario": "Scenario",
    "bench.streams.stream": "Split Task",
    "bench.system.randomness": "Draws",
}
MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}
