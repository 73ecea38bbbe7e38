"""All hand-made prompts of a stream's classes, and the mean of each class's own, for methods whose text tower changes.

    texts, owners = prompts_of_classes(scenario)                                  # P prompts, owners (P,)
    vectors = mean_of_prompts(encode(texts), owners, len(scenario.class_names))   # (N, d)
"""

import torch
import torch.nn.functional as F

from bench import Scenario


def prompts_of_classes(scenario: Scenario, template: str | None = None) -> tuple[list[str], torch.Tensor]:
    """Every template filled with the name of its class, class by class, and the class (P,) of each; or the one template."""
    lists = [[template] if template else list(templates) for templates in scenario.templates]
    texts = [t.format(name) for name, templates in zip(scenario.class_names, lists) for t in templates]
    return texts, torch.tensor([c for c, templates in enumerate(lists) for _ in templates])


def mean_of_prompts(features: torch.Tensor, owners: torch.Tensor, n: int) -> torch.Tensor:
    """norm(mean over the prompts of a class of norm(feature)): (n, d) of features (P, d) whose classes are owners (P,)."""
    sums = torch.zeros(n, features.shape[1], dtype=features.dtype, device=features.device)
    return F.normalize(sums.index_add(0, owners, F.normalize(features, dim=-1)), dim=-1)
