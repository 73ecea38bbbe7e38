"""Pretrain the miniature CLIP: `python -m protocols.datasets.mini_world.tools.pretrain --out FILE`.

Loss: L = L_clip + w L_words, with w falling linearly from 1 to 0.
  L_clip   the symmetric contrastive loss over the pairs of one process' batch;
  L_words  = - sum_v t_v log softmax(W f)_v, where f is the un-normalised image embedding, W a linear head that is
           dropped afterwards, and t the caption's words weighted by inverse document frequency and normalised.
L_words tells the image tower early which words matter; contrast alone finds colours and scenes first and shapes late.

Two single-threaded processes each draw their own half of the data and average gradients. Every random choice comes
from a fixed seed and the number of steps is fixed, so the command reproduces its file up to floating-point rounding.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

from bench.clip import mini
from bench.clip.text_tower import encode_tokens
from protocols.datasets.mini_world.factors import world_seed
from protocols.datasets.mini_world.mixture import mixture


@dataclass(frozen=True)
class Recipe:
    """Everything that can vary."""

    steps: int = 2600
    seed: int = 0
    processes: int = 2
    batch: int = 96  # pairs per process and step
    chunks: int = 28  # pieces of data per process
    chunk: int = 2048  # pairs per piece
    rate: float = 1.5e-3
    scale_rate: float = 7.5e-3  # the logit scale's own learning rate
    weight_decay: float = 0.1  # on matrices
    warm_up: int = 100  # steps
    final_rate: float = 0.03  # end of the cosine, as a fraction
    checkpoint: int = 600  # steps between intermediate files


@dataclass(frozen=True)
class Corpus:
    """One process' pairs, tokenised with a vocabulary of 0 = padding, 1 = start, words, last = end."""

    images: np.ndarray  # (n, 32, 32, 3) uint8
    tokens: np.ndarray  # (n, length)
    lengths: np.ndarray  # (n,)
    token_ids: list[int]  # open_clip's id of vocabulary entry 1, 2, ...
    word_targets: torch.Tensor  # (n, vocabulary), rows sum to 1


def _draw_corpus(recipe: Recipe, rank: int) -> Corpus:
    images, texts = [], []
    for chunk in range(recipe.chunks):
        drawn, captions, _ = mixture(recipe.chunk, world_seed("pretraining", recipe.seed, rank, chunk))
        images.append(drawn)
        texts += captions
    tokenizer = SimpleTokenizer()
    known = {text: tokenizer.encode(text) for text in set(texts)}
    encoded = [known[text] for text in texts]
    counts: list[Counter[int]] = [Counter()] * recipe.processes  # each is replaced by what its process has counted
    dist.all_gather_object(counts, Counter(token for words in encoded for token in set(words)))
    documents = sum(counts, Counter[int]())
    words = sorted(documents)
    compact = {token: index for index, token in enumerate(words, start=2)}
    end = len(words) + 2
    lengths = np.array([len(tokens) + 2 for tokens in encoded])
    tokens = np.zeros((len(encoded), lengths.max()), np.int64)
    for row, caption in zip(tokens, encoded, strict=True):
        row[: len(caption) + 2] = [1, *(compact[token] for token in caption), end]
    rarity = np.log(recipe.processes * len(encoded) / np.array([documents[token] for token in words]))
    targets = np.zeros((len(encoded), end + 1), np.float32)
    targets[np.arange(len(encoded))[:, None], tokens] = 1
    targets[:, [0, 1, end]] = 0
    targets[:, 2:end] *= rarity
    targets /= targets.sum(axis=1, keepdims=True)
    ids = [tokenizer.sot_token_id, *words, tokenizer.eot_token_id]
    return Corpus(np.concatenate(images), tokens, lengths, ids, torch.from_numpy(targets))


def _encode_by_length(model: CLIP, tokens: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
    """Text embeddings (n, 128); short captions do not wait for the few long ones."""
    order = np.argsort(lengths, kind="stable")
    parts = np.split(order, [len(order) * 2 // 3, len(order) * 15 // 16])
    texts = [torch.from_numpy(tokens[part, : lengths[part].max()]) for part in parts if len(part)]
    encoded = torch.cat([encode_tokens(model, text) for text in texts])  # in `order`
    return encoded[torch.from_numpy(np.argsort(order))]


def _jostled(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shift a batch (n, 3, 32, 32) by up to one pixel."""
    top, left = rng.integers(0, 3, 2)
    side = mini.IMAGE_SIZE
    return F.pad(images, (1, 1, 1, 1), mode="replicate")[:, :, top : top + side, left : left + side]


def _optimizer(model: CLIP, head: nn.Linear, recipe: Recipe) -> torch.optim.AdamW:
    parameters = [*model.named_parameters(), *head.named_parameters()]
    groups = [
        {
            "params": [p for n, p in parameters if p.ndim >= 2],
            "peak": recipe.rate,
            "weight_decay": recipe.weight_decay,
        },
        {
            "params": [p for n, p in parameters if p.ndim < 2 and n != "logit_scale"],
            "peak": recipe.rate,
            "weight_decay": 0.0,
        },
        {"params": [model.logit_scale], "peak": recipe.scale_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), fused=True)


def _schedule(step: int, recipe: Recipe) -> float:
    """The learning rate as a fraction of its peak: linear warm-up, then a cosine."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    progress = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.final_rate + (1 - recipe.final_rate) * 0.5 * (1 + np.cos(np.pi * progress))


def _average_gradients(parameters: list[nn.Parameter], processes: int) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]  # each has one after a step
    flat = parameters_to_vector(gradients)
    dist.all_reduce(flat)
    vector_to_parameters(flat / processes, gradients)


def _batches(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of indices; every pass is a new permutation."""
    while True:
        order = rng.permutation(n)
        yield from (order[start : start + size] for start in range(0, n - size + 1, size))


def _save(model: CLIP, corpus: Corpus, recipe: Recipe, done: int, out: Path) -> None:
    state = model.state_dict()
    state["token_embedding.weight"] = state["token_embedding.weight"][1:]  # row 0 is padding
    metadata = {
        "command": "python -m protocols.datasets.mini_world.tools.pretrain",
        "steps": f"{done} of {recipe.steps}",
        "seed": str(recipe.seed),
    }
    mini.save(state, corpus.token_ids, out, metadata)


def _train(rank: int, recipe: Recipe, out: Path, meeting_point: str) -> None:
    """One process of the run; the first one reports on standard error and writes the file."""
    torch.set_num_threads(1)
    store = dist.FileStore(meeting_point, recipe.processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=recipe.processes)
    started = time.monotonic()
    corpus = _draw_corpus(recipe, rank)
    if rank == 0:
        print(f"data {time.monotonic() - started:.0f} s, {len(corpus.token_ids)} tokens", file=sys.stderr, flush=True)
    torch.manual_seed(recipe.seed)
    vocabulary = corpus.word_targets.shape[1]
    model = mini.build(vocabulary).train()
    head = nn.Linear(mini.CONFIG["embed_dim"], vocabulary)
    optimizer = _optimizer(model, head, recipe)
    parameters = [*model.parameters(), *head.parameters()]
    rng = np.random.default_rng(world_seed("batches", recipe.seed, rank))
    answer = torch.arange(recipe.batch)
    running = np.zeros(2)
    batches = _batches(len(corpus.images), recipe.batch, rng)
    for step in range(recipe.steps):
        chosen = next(batches)
        images = model.encode_image(_jostled(mini.preprocess(corpus.images[chosen]), rng))  # (batch, 128)
        texts = _encode_by_length(model, corpus.tokens[chosen], corpus.lengths[chosen])  # (batch, 128)
        logits = model.logit_scale.exp() * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T  # (batch, batch)
        contrast = 0.5 * (F.cross_entropy(logits, answer) + F.cross_entropy(logits.T, answer))
        words = F.cross_entropy(head(images), corpus.word_targets[torch.from_numpy(chosen)])
        optimizer.zero_grad(set_to_none=True)
        (contrast + (1 - step / recipe.steps) * words).backward()
        _average_gradients(parameters, recipe.processes)
        clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _schedule(step, recipe)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100))
        running += (contrast.item(), words.item())
        done = step + 1
        if rank == 0 and done % 50 == 0:
            clip_loss, words_loss = running / 50
            scale, elapsed = model.logit_scale.exp().item(), time.monotonic() - started
            line = f"step {done} clip {clip_loss:.3f} words {words_loss:.3f} scale {scale:.1f} {elapsed:.0f} s"
            print(line, file=sys.stderr, flush=True)
            running[:] = 0
        if rank == 0 and (done % recipe.checkpoint == 0 or done == recipe.steps):
            _save(model, corpus, recipe, done, out)
    dist.destroy_process_group()


def pretrain(recipe: Recipe, out: Path) -> None:
    """Run the recipe and write its weights file."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (recipe, out, str(Path(folder) / "store"))
        torch.multiprocessing.spawn(_train, arguments, nprocs=recipe.processes)


def main() -> None:
    """Parse the command line and pretrain."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="weights file to write")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="seed of data and weights (default: %(default)s)")
    arguments = parser.parse_args()
    pretrain(Recipe(steps=arguments.steps, seed=arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
