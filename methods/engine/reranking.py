"""A second look at the best classes of an image, by descriptions that tell each of them from the others.

Of the k classes a with the highest cosines, and over a number of draws,

    r_a = mean over draws of  u(f) . u(mean over the other k - 1 classes b of t("{a} with {description of a against b}"))

with f the raw image feature and t a raw text feature, both of the frozen towers, and u(v) = v / |v|. All other classes have 0,
which is less: the cosines of CLIP's images and texts are positive.
"""

import torch
import torch.nn.functional as F

from bench import Draws
from methods.engine.descriptions import Descriptions


def description_table(descriptions: Descriptions, n_classes: int, n_draws: int, draws: Draws, task: int) -> torch.Tensor:
    """(draws, n, n) which description of class a serves against class b: its place among those of a; -1 for none.

    The release draws for every image. Here each ordered pair gets its draws once per task, so that an image's score does not
    depend on when it is asked for, nor on the images before it.
    """
    table = torch.full((n_draws, n_classes, n_classes), -1)
    shares = draws.uniform(table.shape, "re-ranking", task)
    for a in range(n_classes):
        for b in range(n_classes):
            if places := descriptions.against(a, b):
                table[:, a, b] = torch.tensor(places)[(shares[:, a, b] * len(places)).long()]
    return table


def best_classes(cosines: torch.Tensor, k: int) -> torch.Tensor:
    """(b, k) the classes with the highest cosines (b, n), best first; all where there are fewer."""
    return cosines.topk(min(k, cosines.shape[1]), dim=1).indices


def chosen_rows(table: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """(draws, b, k, k - 1) what the table (draws, n, n) has for each best class against the others, in the order of `best`."""
    k = best.shape[1]
    others = torch.tensor([[j for j in range(k) if j != i] for i in range(k)], dtype=torch.long).view(k, k - 1).to(best.device)
    return table[:, best.unsqueeze(2), best[:, others]]


def reranked(
    features: torch.Tensor, best: torch.Tensor, rows: torch.Tensor, descriptions: Descriptions, n_classes: int
) -> torch.Tensor:
    """r (b, n) of raw image features (b, D), from the rows (draws, b, k, k - 1) of descriptions; 0 for classes not in `best`."""
    images, scores = F.normalize(features, dim=-1), features.new_zeros(len(features), n_classes)
    for c in best.unique().tolist() if rows.shape[-1] else ():
        place = torch.nonzero(best == c)  # which image, and where among its best
        chosen = rows[:, place[:, 0], place[:, 1]]  # (draws, m, k - 1)
        texts = descriptions.features(c)[chosen.clamp_min(0)] * (chosen >= 0).unsqueeze(-1)
        mean = F.normalize(texts.sum(dim=2), dim=-1)  # the length of the mean does not matter
        scores[place[:, 0], c] = (mean * images[place[:, 0]]).sum(dim=-1).mean(dim=0)
    return scores
