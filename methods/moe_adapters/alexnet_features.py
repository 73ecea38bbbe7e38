"""AlexNet's features up to its fifth convolution, before the ReLU: (b, 3, 224, 224) -> (b, 256 * 13 * 13)."""

from pathlib import Path

import torch

from bench import BenchError
from bench.clip import state_dicts
from bench.system.offline import offline

LAYERS = 11  # of torchvision's `features`: five convolutions, four ReLU, two poolings
SMALLEST = 31  # pixels a side: below, nothing is left after the two poolings


class AlexNetFeatures:
    """Frozen, and no module: the weights are ImageNet's, not a method's state."""

    def __init__(self, weights: str | None, device: torch.device):
        """`weights` is a file with torchvision's state dict; None lets torchvision fetch its own once."""
        from torchvision.models import AlexNet_Weights, alexnet

        if weights:
            self.network = alexnet()
            self._load(Path(weights))
        else:
            file = Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.IMAGENET1K_V1.url).name
            if (why := offline()) and not file.is_file():
                raise BenchError(
                    f"AlexNet's ImageNet weights are not on this machine ({why}); download "
                    f"{AlexNet_Weights.IMAGENET1K_V1.url} to {file}, or name a file with alexnet_weights=FILE"
                )
            try:
                self.network = alexnet(weights=AlexNet_Weights.IMAGENET1K_V1)
            except Exception as error:  # urllib, ssl, torch.hub and a full disk each have their own kinds
                raise BenchError(
                    f"AlexNet's ImageNet weights could not be fetched ({type(error).__name__}); "
                    "get alexnet-owt-7be5be79.pth from pytorch.org and name it with alexnet_weights=FILE"
                ) from error
        self.network = self.network.features[:LAYERS].to(device).eval().requires_grad_(False)

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise BenchError(f"alexnet_weights={path}: no such file")
        found = {name: value for name, value in state_dicts.tensors_of_part(path).items() if name.startswith("features.")}
        try:
            # the classifier is not needed and may be absent
            self.network.load_state_dict(self.network.state_dict() | found, strict=True)
        except RuntimeError as error:
            raise BenchError(f"alexnet_weights={path}: these are not torchvision's AlexNet weights") from error
        if not {name for name in self.network.state_dict() if name.startswith("features.")} <= set(found):
            raise BenchError(f"alexnet_weights={path}: AlexNet's convolutions are missing in it")

    @torch.no_grad()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixels).flatten(1)

    def width(self, size: int, device: torch.device) -> int:
        """Features of an image of so many pixels a side."""
        if size < SMALLEST:
            raise BenchError(f"AlexNet needs images of at least {SMALLEST} pixels a side, not {size}: use domain_features=clip")
        return self(torch.zeros(1, 3, size, size, device=device)).shape[1]
