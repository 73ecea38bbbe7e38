"""A tiny CLIP with random weights and 96 images of 8 classes, as the harness's own objects.

The numbers of the conformance vectors were computed on it. Its weights are exact in float16, so that every implementation
starts from the same bits; its accuracies mean nothing.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.transform import image_transform
from safetensors.torch import load_file

from bench.clip.backbone import Backbone, file_digest
from bench.images.dataset import ImageSource
from bench.streams.features import FeatureStore
from bench.streams.stream import Scenario, Split, Stream, Task

FOLDER = Path(__file__).parent / "tiny-clip"
ENLARGE = 14  # stored images are 16 x 16; each pixel becomes a square of this side


class TinyWorld:
    """The backbone, the images in file order, and streams made of them.

    `labels` (96,) are the fixture's classes and `is_train` (96,) its training images; `class_names` has its 8 names.
    """

    def __init__(self, folder: Path):
        data = np.load(FOLDER / "images.npz", allow_pickle=False)
        self.labels = torch.from_numpy(data["labels"])
        self.is_train = torch.from_numpy(data["is_train"])
        self.class_names = tuple(str(name) for name in data["class_names"])
        images = data["images"].repeat(ENLARGE, axis=1).repeat(ENLARGE, axis=2)  # (96, 224, 224, 3) uint8
        self.source = ImageSource.from_arrays(images, data["labels"])
        self.backbone = load_backbone()
        self.store = FeatureStore(self.backbone, folder)

    def features(self) -> torch.Tensor:
        """(96, d) raw embeddings of all images."""
        return torch.from_numpy(np.array(self.store.features(self.source)))

    def split(self, rows: torch.Tensor, labels: torch.Tensor) -> Split:
        """The images at `rows`, with one label for each."""
        return Split([(self.source, rows.numpy())], labels, self.store)

    def stream(
        self, class_names: Sequence[str], classes_per_task: Sequence[int], labels: torch.Tensor, templates: Sequence[str]
    ) -> Stream:
        """A class-incremental stream. `labels` (96,) gives each image its learning position, or -1 to leave it out."""
        scenario = Scenario(
            kind="class-incremental",
            class_names=tuple(class_names),
            templates=(tuple(templates),) * len(class_names),
            task_of_class=tuple(np.repeat(range(len(classes_per_task)), classes_per_task).tolist()),
        )
        tasks = []
        for index, (end, size) in enumerate(zip(np.cumsum(classes_per_task), classes_per_task)):
            classes = tuple(range(int(end) - int(size), int(end)))
            own = torch.isin(labels, torch.tensor(classes))
            train, test = (torch.nonzero(own & part).flatten() for part in (self.is_train, ~self.is_train))
            task = (self.split(train, labels[train]), self.split(test, labels[test]))
            tasks.append(Task(index, f"task {index}", classes, *task))
        return Stream(scenario, tuple(tasks))


def load_backbone() -> Backbone:
    """The tiny CLIP. Its token table is stored short: row i of the embedding is row i modulo the table's length."""
    config = json.loads((FOLDER / "open_clip_config.json").read_text())
    path = FOLDER / "open_clip_model.safetensors"
    weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    table = weights.pop("token_embedding.table")
    vocabulary = config["model_cfg"]["text_cfg"]["vocab_size"]
    weights["token_embedding.weight"] = table[torch.arange(vocabulary) % len(table)]
    clip = open_clip.model.CLIP(**config["model_cfg"])
    clip.load_state_dict(weights, strict=True)
    preprocessing = config["preprocess_cfg"]
    size = config["model_cfg"]["vision_cfg"]["image_size"]
    transform = image_transform(size, is_train=False, mean=preprocessing["mean"], std=preprocessing["std"])
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=config["model_cfg"]["text_cfg"]["context_length"])
    return Backbone("tiny", "random", clip, tokenizer, transform, file_digest(path), "cpu")
