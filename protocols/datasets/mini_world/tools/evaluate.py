"""Measure the shipped model on the nine data sets: `python -m protocols.datasets.mini_world.tools.evaluate` prints Markdown.

Zero-shot uses each data set's one template. The linear probe is a multinomial logistic regression on normalised image
embeddings; its C is chosen on the last fifth of every class' training images, then fitted on all of them.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from sklearn.linear_model import LogisticRegression

from bench.clip import mini
from bench.clip.text_tower import encode_tokens
from protocols.datasets.mini_world.downstream import DATASETS, MiniDataset, draw

_PROBE_C = (3, 30, 300)


class Score(NamedTuple):
    """One data set's accuracies, as fractions."""

    zero_shot: float
    probe: float


@torch.inference_mode()
def image_features(model: CLIP, images: np.ndarray) -> np.ndarray:
    """Normalised embeddings (n, 128) of uint8 images (n, 32, 32, 3)."""
    batches = [mini.preprocess(images[start : start + 256]) for start in range(0, len(images), 256)]
    return torch.cat([model.encode_image(batch, normalize=True) for batch in batches]).numpy()


@torch.inference_mode()
def text_features(model: CLIP, dataset: MiniDataset) -> np.ndarray:
    """Normalised embeddings (classes, 128) of the class names in the data set's template."""
    tokens = SimpleTokenizer()([dataset.template.format(name) for name in dataset.class_names])  # (classes, 77)
    return F.normalize(encode_tokens(model, tokens), dim=1).numpy()


def zero_shot(model: CLIP, name: str) -> float:
    """Test accuracy of the nearest class name."""
    images, labels = draw(name, "test")
    similarity = image_features(model, images) @ text_features(model, DATASETS[name]).T  # (n, classes)
    return float((similarity.argmax(axis=1) == labels).mean())


def linear_probe(model: CLIP, name: str) -> float:
    """Test accuracy of a logistic regression on frozen embeddings."""
    images, labels = draw(name, "train")
    test_images, test_labels = draw(name, "test")
    features, test_features = image_features(model, images), image_features(model, test_images)
    per_class = DATASETS[name].train_per_class
    held = np.arange(len(labels)) % per_class >= per_class * 4 // 5

    def fitted(c: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=c, max_iter=300).fit(features[rows], labels[rows])

    best = max(_PROBE_C, key=lambda c: fitted(c, ~held).score(features[held], labels[held]))
    return float(fitted(best, np.full(len(labels), True)).score(test_features, test_labels))


def images_per_cpu_second(model: CLIP) -> float:
    """Image encoding speed on one thread."""
    images = draw("textures", "test")[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    image_features(model, images)  # warm up
    started = time.process_time()
    image_features(model, images)
    speed = len(images) / (time.process_time() - started)
    torch.set_num_threads(threads)
    return speed


def table(scores: dict[str, Score]) -> str:
    """A Markdown table in percent, with chance level and means."""
    lines = ["| set | K | chance | zero-shot | probe | gap |", "|---|---|---|---|---|---|"]
    rows = []
    for name, score in scores.items():
        classes = len(DATASETS[name].class_names)
        chance, zero, probe = 100 / classes, 100 * score.zero_shot, 100 * score.probe
        rows.append((chance, zero, probe))
        lines.append(f"| {name} | {classes} | {chance:.1f} | {zero:.1f} | {probe:.1f} | {probe - zero:.1f} |")
    chance, zero, probe = np.mean(rows, axis=0)
    lines.append(f"| mean | | {chance:.1f} | {zero:.1f} | {probe:.1f} | {probe - zero:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, the logit scale and the encoding speed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=Path, default=mini.WEIGHTS, help="default: the shipped file")
    model = mini.load(parser.parse_args().weights)
    print(table({name: Score(zero_shot(model, name), linear_probe(model, name)) for name in DATASETS}))
    scale, speed = model.logit_scale.exp().item(), images_per_cpu_second(model)
    print(f"\nLogit scale {scale:.1f}; {speed:.0f} images encoded per CPU-second.")


if __name__ == "__main__":
    main()
