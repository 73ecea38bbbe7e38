"""The second half of a task's training: its classes against those of earlier tasks, where these have something to say.

With columns for the C classes of the present task t, then for all other classes of earlier tasks, and vectors (columns, d):

    U_c = max over those tasks j that have class c of s v_j . vector_c             (b, columns)
    V_c = s c_hat . vector_c

Without gradients, for every image: E = logsumexp(U over the present classes) / s, E_u the same over the classes of an earlier
task u that are not also present ones, d = E - E_u. Columns of u are closed for images with d at most max(q-quantile of d over
the batch, 0): so at q = 0.7 they are open for no more than about three images in ten, those in which the present task dominates
most. An earlier task all of whose names are also present ones has no columns. A batch of one image opens nothing.

    loss = mean over images of (CE(U) + CE(V)) / 2,  over the present classes for images that U places rightly among all
                                                     columns, over all open columns for the others
"""

import torch
import torch.nn.functional as F


def open_domain_loss(
    of_prompts: torch.Tensor,
    of_images: torch.Tensor,
    vectors: torch.Tensor,
    owned: torch.Tensor,
    n_present: int,
    labels: torch.Tensor,
    scale: float,
    quantile: float,
) -> torch.Tensor:
    """The loss of a batch.

    of_prompts (b, m, d): unit v of the m tasks so far, the present one last. of_images (b, d): unit c_hat. vectors (K, d): of
    all columns, the n_present present classes first. owned (m, K): which task has which class. labels (b,): columns.
    """
    of_tasks = best_of_tasks(scale * of_prompts @ vectors.T, owned)  # U (b, K)
    of_frozen = scale * of_images @ vectors.T  # V (b, K)
    with torch.no_grad():
        closed = closed_columns(of_tasks / scale, owned, n_present, scale, quantile)
        right = of_tasks.gather(1, labels.unsqueeze(1)) >= of_tasks.amax(dim=1, keepdim=True)  # (b, 1)
        closed[:, n_present:] |= right
    both = (F.cross_entropy(scores.masked_fill(closed, -torch.inf), labels) for scores in (of_tasks, of_frozen))
    return torch.stack([*both]).mean()


def best_of_tasks(scores: torch.Tensor, owned: torch.Tensor) -> torch.Tensor:
    """(b, m, K) scores by every task and owned (m, K) -> (b, K) the largest of the tasks that have the class."""
    return scores.masked_fill(~owned, -torch.inf).amax(dim=1)


def closed_columns(cosines: torch.Tensor, owned: torch.Tensor, n_present: int, scale: float, quantile: float) -> torch.Tensor:
    """(b, K) columns of earlier tasks that do not count for an image, from U / s (b, K)."""
    closed = torch.zeros_like(cosines, dtype=torch.bool)
    present = energy(cosines[:, :n_present], scale)
    for own in owned[:-1]:
        columns = torch.nonzero(own[n_present:]).flatten() + n_present
        if len(columns) == 0:
            continue
        ahead = present - energy(cosines[:, columns], scale)  # d (b,)
        limit = torch.quantile(ahead, quantile).clamp_min(0)
        closed[:, columns] |= (ahead <= limit).unsqueeze(1)
    return closed


def energy(cosines: torch.Tensor, scale: float) -> torch.Tensor:
    """(b, columns) -> (b,)"""
    return (scale * cosines).logsumexp(dim=1) / scale
