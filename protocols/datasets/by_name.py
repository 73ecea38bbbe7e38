"""Data sets whose class names and templates are among the stored ones."""

from bench import Dataset, DatasetInfo, Layout, dataset_on_disk
from protocols.datasets import data


def data_set(
    name: str,
    *layouts: Layout,
    version: str,
    summary: str,
    origin: str,
    train_images: int | None = None,
    test_images: int | None = None,
    image_size: tuple[int, int] = (224, 224),
    names: str = "",
    templates: str = "",
    repeated_names: tuple[str, ...] = (),
) -> Dataset:
    """A data set on disk; the facts are those of DatasetInfo.

    Class names and templates are stored under the data set's own name, unless `names` or `templates` says under which.
    """
    info = DatasetInfo(
        name, version, data.class_names(names or name), data.templates(templates or name), summary, origin,
        train_images, test_images, image_size, repeated_names,
    )  # fmt: skip
    return dataset_on_disk(info, *layouts)
