"""A CLIP: encode images, encode prompts, build zero-shot classifiers.

`load("mini", None, "cpu")` gives the miniature CLIP that ships with the package; any other name is an open_clip
architecture, with a pretrained tag, a file or folder, or "none" (random weights, for measuring speed).

Text is encoded at the length of the longest prompt of the call instead of 77 tokens. The text tower is causal and is
read at the end-of-text token, so later tokens cannot influence the result: the same numbers for less work.
"""

import copy
import functools
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F

from bench.clip import loading
from bench.clip.image_tower import pooled_images
from bench.clip.loading import identity as identity
from bench.clip.precision import compute_in, resolve_precision
from bench.clip.text_tower import encode_embedded, encode_tokens, prompt_length
from bench.clip.tower_types import ClipModel, clip_model, vision_transformer
from bench.errors import BenchError
from bench.system.files import file_digest as file_digest
from bench.system.parallel import in_parallel

if TYPE_CHECKING:
    from bench.images.sources import Images

TEXTS_KEPT = 100_000  # whose token ids stay in memory: 60 MB
TEXTS_AT_ONCE = 512
ENCODE_BATCH = 256  # fixed, so that the rounding of a feature does not depend on who asks for it


@runtime_checkable
class PromptsOfClasses(Protocol):
    """What `Backbone.classifier` used to be called with: a scenario, of which it needs no more than this."""

    def prompts_of(self, classes: Sequence[int], template: str | None = None) -> Sequence[Sequence[str]]: ...


class Backbone:
    """A frozen CLIP in open_clip's layout, with the operations that methods need.

    Shapes: d is the joint embedding width, w the width of the text tower. `image_passes` counts the images that went
    through the image tower, or through that of a trainable copy. `facts` is what results record of it.
    """

    def __init__(
        self,
        name: str,
        pretrained: str,
        clip: torch.nn.Module,
        tokenizer: Callable[[list[str]], torch.Tensor],
        transform: Any,
        digest: str,
        device: str,
        precision: str = "float32",
        activation: str = "gelu",
    ):
        self.name = name
        self.pretrained = pretrained
        self.digest = digest
        self.device = torch.device(device)
        self.clip = clip_model(clip.to(self.device).eval().requires_grad_(False))
        self.tokenizer = tokenizer
        self.transform = transform
        self.precision = precision
        self.activation = activation
        self.facts: dict[str, Any] = {"precision": precision, "preprocessing": self.preprocessing}
        self.image_passes = 0
        compute_in(self.clip, precision, self.device)

        def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            self.image_passes += len(inputs[0])

        # on the first layer that every pass goes through, also where a method runs the blocks itself; copies keep the hook
        getattr(self.clip.visual, "conv1", self.clip.visual).register_forward_hook(count)

    @property
    def arithmetic(self) -> str:
        """How numbers come about, as far as the weights do not determine it; part of the key of stored features."""
        return f"{self.device.type}-{self.precision}-{self.activation}"

    # -- images -------------------------------------------------------------------------------------------------

    @property
    def image_size(self) -> int:
        size = self.clip.visual.image_size
        return size if isinstance(size, int) else size[0]

    @property
    def preprocessing(self) -> str:
        """Says exactly what happens to an image; part of the key under which features are stored."""
        return re.sub(r" at 0x[0-9a-f]+", "", str(self.transform))

    @functools.cached_property
    def geometry(self) -> str:
        """Says exactly how an image becomes a square; part of the key under which decoded images are kept."""
        return re.sub(r" at 0x[0-9a-f]+", "", str(self._steps_to_a_square))

    @property
    def _steps_to_a_square(self) -> list[Any]:
        """All but the last two steps of the preprocessing, which scale to [0, 1] and normalise."""
        return self.transform.transforms[:-2]

    @functools.cached_property
    def mean(self) -> torch.Tensor:
        """(3, 1, 1), on the device: what preprocessing subtracts from values in [0, 1]."""
        return torch.as_tensor(self.transform.transforms[-1].mean, dtype=torch.float32).view(-1, 1, 1).to(self.device)

    @functools.cached_property
    def std(self) -> torch.Tensor:
        """(3, 1, 1), on the device: what it then divides by."""
        return torch.as_tensor(self.transform.transforms[-1].std, dtype=torch.float32).view(-1, 1, 1).to(self.device)

    @functools.cached_property
    def _white(self) -> torch.Tensor:
        """255 on the device: dividing by a number would round differently on a GPU."""
        return torch.tensor(255.0, device=self.device)

    def resize(self, images: "Images") -> "Images":
        """uint8 images (height, width, 3) -> (size, size, 3): the preprocessing as far as it works on whole-number pixels."""
        from PIL import Image

        square = (self.image_size, self.image_size, 3)
        if all(image.shape == square for image in images):
            return images  # resizing and cropping would change nothing

        def resized(image: np.ndarray) -> np.ndarray:
            picture = Image.fromarray(image)
            for step in self._steps_to_a_square:
                picture = step(picture)
            return np.array(picture)

        return in_parallel(resized, images)

    def preprocess(self, images: "Images", view: str = "plain") -> torch.Tensor:
        """uint8 images (height, width, 3) -> pixels (b, 3, size, size) on the device; "mirrored" flips left-right."""
        if view not in ("plain", "mirrored"):
            raise ValueError(f"unknown view {view!r}")
        if not len(images):
            return torch.zeros(0, 3, self.image_size, self.image_size, device=self.device)
        squares = torch.from_numpy(np.stack(list(self.resize(images))))  # (b, size, size, 3)
        if self.device.type == "cuda":
            squares = squares.pin_memory()
        squares = squares.to(self.device, non_blocking=True)  # a quarter of the bytes that floats would be
        pixels = squares.permute(0, 3, 1, 2).float().div_(self._white).sub_(self.mean).div_(self.std)
        return (pixels.flip(-1) if view == "mirrored" else pixels).contiguous()

    def to_uint8(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (b, 3, size, size) -> the square images before normalisation (b, size, size, 3).

        `preprocess` turns these into the same pixels again, so that images can be kept in a quarter of the memory.
        """
        return ((pixels * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, size, size) -> (b, d), un-normalised."""
        return self.clip.encode_image(pixels)

    @torch.no_grad()
    def pool_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, size, size) -> (b, pooled width): the image tower's output before the projection, un-normalised."""
        return pooled_images(self.clip.visual, pixels)

    @property
    def pooled_width(self) -> int:
        """Width of `pool_images`: 768 for ViT-B, 1024 for ViT-L."""
        return vision_transformer(self.clip.visual).ln_post.normalized_shape[0]

    @property
    def image_projection(self) -> torch.Tensor | None:
        """(pooled width, d): from `pool_images` to `encode_images`; None where a tower has no such matrix."""
        found = getattr(self.clip.visual, "proj", None)
        return found.detach() if isinstance(found, torch.Tensor) else None

    # -- text ---------------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """(n, 77) token ids on the device. They are kept: many methods ask for the same class names in every batch."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._token_ids]
        if len(self._token_ids) + len(missing) > TEXTS_KEPT:
            return self.tokenizer(list(texts)).to(self.device)
        if missing:
            self._token_ids.update(zip(missing, self.tokenizer(missing)))
        ids = [self._token_ids[text] for text in texts]
        return (torch.stack(ids) if ids else self.tokenizer([])).to(self.device)

    @functools.cached_property
    def _token_ids(self) -> dict[str, torch.Tensor]:
        return {}

    @property
    def text_width(self) -> int:
        return self.clip.token_embedding.weight.shape[1]

    @property
    def embedding_width(self) -> int:
        projection = self.clip.text_projection
        return projection.out_features if isinstance(projection, torch.nn.Linear) else projection.shape[1]

    @functools.cached_property
    def logit_scale(self) -> float:
        """exp of the learned temperature: 100 for OpenAI's models. It is frozen, and read once: reading makes a GPU wait."""
        return float(self.clip.logit_scale.detach().exp())

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, 77) ids -> (n, length, w) embeddings, cut at the longest prompt."""
        return self.clip.token_embedding(tokens[:, : prompt_length(tokens)])

    def encode_embedded(self, embeddings: torch.Tensor, end: torch.Tensor, shared: int = 1) -> torch.Tensor:
        """Token embeddings (n, length, w) and end-of-text positions (n,) -> text features (n, d), un-normalised.

        Gradients flow to the embeddings: this is how prompts are learned. `shared`: so many tokens at the start are the same
        in all prompts, and are computed once.
        """
        return encode_embedded(self.clip, embeddings, end, shared)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], clip: ClipModel | None = None) -> torch.Tensor:
        """(n, d) un-normalised text features of n prompts; `clip` is a trained copy to use instead of the frozen CLIP."""
        chunks = [tuple(texts[i : i + TEXTS_AT_ONCE]) for i in range(0, len(texts), TEXTS_AT_ONCE)]
        if clip is None or clip is self.clip:
            return torch.cat([self._frozen_texts(chunk, torch.get_num_threads()) for chunk in chunks])
        return torch.cat([encode_tokens(clip, self.tokenize(chunk)) for chunk in chunks])

    @functools.cached_property
    def _frozen_texts(self) -> Callable[[tuple[str, ...], int], torch.Tensor]:
        """Methods of one command ask for the same class vectors. Whole chunks are kept, of each number of threads by itself:
        other neighbours or threads, other rounding, and a run may not depend on what this process has done before."""
        return functools.lru_cache(maxsize=64)(lambda texts, threads: encode_tokens(self.clip, self.tokenize(texts)))

    def classifier(
        self,
        prompts: "Sequence[Sequence[str]] | PromptsOfClasses",
        classes: Sequence[int] | None = None,
        template: str | None = None,
        clip: ClipModel | None = None,
    ) -> torch.Tensor:
        """Zero-shot class vectors (n, d) of unit length from the prompts of n classes (`scenario.prompts_of`).

        Every prompt of a class is encoded and normalised, then averaged and normalised again. `clip` is a trained copy to
        use instead of the frozen CLIP. Until now the call was classifier(scenario, classes, template); it still works.
        """
        if isinstance(prompts, PromptsOfClasses):
            warnings.warn(
                "Backbone.classifier takes prompts: write classifier(scenario.prompts_of(classes, template), clip=...)",
                DeprecationWarning,
                stacklevel=2,
            )
            prompts = prompts.prompts_of(() if classes is None else classes, template)
        texts = [text for of_class in prompts for text in of_class]
        features = F.normalize(self.encode_text(texts, clip), dim=-1).clone()
        means = torch.stack([part.mean(dim=0) for part in features.split([len(of_class) for of_class in prompts])])
        return F.normalize(means, dim=-1)

    @property
    def frozen_parameters(self) -> int:
        """Of both towers."""
        return sum(p.numel() for p in self.clip.parameters())

    # -- training -----------------------------------------------------------------------------------------------

    def trainable_copy(self) -> ClipModel:
        """An own copy of the CLIP for methods that change its weights; the logit scale stays frozen."""
        clip = copy.deepcopy(self.clip).requires_grad_(True)
        clip.logit_scale.requires_grad_(False)
        return clip


# -- loading ----------------------------------------------------------------------------------------------------


def resolve_device(device: str) -> str:
    """"auto" is CUDA where there is a GPU, else the CPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device):
        raise BenchError(f"--device {device!r}: write auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BenchError(f"--device {device}: this machine has no usable CUDA device; use --device cpu")
    return device


@functools.lru_cache(maxsize=2)
def load(name: str, pretrained: str | None, device: str, precision: str = "auto") -> Backbone:
    """The backbone of that name on that device; loaded once per process.

    `precision` is that of the towers' blocks, see bench.clip.precision: float32 on the CPU and mixed on a GPU by default.
    """
    chosen = resolve_precision(precision, device)
    loaded = loading.load(name, pretrained)
    backbone = Backbone(
        name, loaded.label, loaded.clip, loaded.tokenizer, loaded.transform, loaded.digest, device, chosen, loaded.activation
    )
    backbone.facts |= {"activation": f"{loaded.activation} ({loaded.activation_source})", "weights_files": loaded.files}
    backbone.facts |= {"left_out": loaded.left_out} if loaded.left_out else {}
    return backbone
