import math

import pytest
import torch
import torch.nn.functional as F

from methods.coleclip.open_domain_loss import closed_columns, energy, open_domain_loss

SCALE = 20.0


def drawn(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def owned_by(rows, columns):
    return torch.tensor([[c in own for c in range(columns)] for own in rows])


def quantile(values, q):
    """With linear interpolation."""
    ordered, place = sorted(values), q * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def by_hand(v, c_hat, vectors, tasks, n_present, labels, q):
    """Image by image and column by column. `tasks` lists the columns of each task, the present one last."""
    b, columns = len(v), range(len(vectors))
    U = [[max(SCALE * float(v[i, j] @ vectors[c]) for j, own in enumerate(tasks) if c in own) for c in columns] for i in range(b)]
    V = [[SCALE * float(c_hat[i] @ vectors[c]) for c in columns] for i in range(b)]
    open_to = [set(columns) for _ in range(b)]
    for own in tasks[:-1]:
        others = [c for c in own if c >= n_present]
        if not others:
            continue
        of_present = [math.log(sum(math.exp(U[i][c]) for c in range(n_present))) / SCALE for i in range(b)]
        of_own = [math.log(sum(math.exp(U[i][c]) for c in others)) / SCALE for i in range(b)]
        d = [a - e for a, e in zip(of_present, of_own)]
        for i in range(b):
            if d[i] <= max(quantile(d, q), 0.0):
                open_to[i] -= set(others)
    total = 0.0
    for i, y in enumerate(labels):
        competing = open_to[i] if U[i][y] < max(U[i]) else set(range(n_present))
        for scores in (U[i], V[i]):
            total += math.log(sum(math.exp(scores[c]) for c in competing)) - scores[y]
    return total / 2 / b, open_to


@pytest.mark.parametrize("q", [0.0, 0.4, 0.7])
@pytest.mark.parametrize(
    ("tasks", "n_present"),
    [
        ([[2, 3, 4], [0, 1]], 2),
        ([[2, 3, 0], [3, 4], [0, 1]], 2),  # one name is a present one, one belongs to two earlier tasks
        ([[0, 1], [2, 3, 4], [0, 1]], 2),  # an earlier task without a column
    ],
)
def test_the_loss_is_its_transcription(tasks, n_present, q):
    v, c_hat, vectors = drawn(30, len(tasks), 6), drawn(30, 6, seed=1), drawn(5, 6, seed=2)
    labels = torch.arange(30) % n_present
    v[:, -1] = F.normalize(v[:, -1] + 2 * vectors[labels], dim=-1)  # the present task is often ahead
    expected, open_to = by_hand(v, c_hat, vectors, tasks, n_present, labels.tolist(), q)
    found = open_domain_loss(v, c_hat, vectors, owned_by(tasks, 5), n_present, labels, SCALE, q)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    cosines = torch.stack([(v @ vectors.T)[:, j].masked_fill(~owned_by(tasks, 5)[j], -9.0) for j in range(len(tasks))]).amax(
        dim=0
    )
    closed = closed_columns(cosines, owned_by(tasks, 5), n_present, SCALE, q)
    assert [set(torch.nonzero(~row).flatten().tolist()) for row in closed] == open_to
    of_earlier = closed[:, n_present:]
    assert of_earlier.any() and not of_earlier.all()


def test_at_most_about_three_images_in_ten_see_an_earlier_task():
    cosines = torch.rand(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cosines[:, :2] += 1  # the present task dominates all
    closed = closed_columns(cosines, owned_by([[2, 3], [0, 1]], 4), 2, SCALE, 0.7)
    assert int((~closed[:, 2]).sum()) == 30
    assert not closed[:, :2].any()
    behind = closed_columns(cosines.flip(1), owned_by([[2, 3], [0, 1]], 4), 2, SCALE, 0.7)
    assert behind[:, 2:].all()  # where the present task dominates no image, the earlier one is not shown at all


def test_a_batch_of_one_image_opens_nothing():
    closed = closed_columns(torch.tensor([[0.9, 0.1]]), owned_by([[1], [0]], 2), 1, SCALE, 0.7)
    assert closed.tolist() == [[False, True]]


def test_energies_do_not_overflow():
    assert float(energy(torch.tensor([[0.99, 0.5]]), 100.0)) == pytest.approx(0.99)


def test_gradients_stay_finite_where_columns_are_closed():
    v, vectors = drawn(4, 2, 6).requires_grad_(), drawn(3, 6, seed=2).requires_grad_()
    loss = open_domain_loss(
        v, drawn(4, 6, seed=1), vectors, owned_by([[2], [0, 1]], 3), 2, torch.tensor([0, 1, 0, 1]), SCALE, 1.0
    )
    loss.backward()
    assert torch.isfinite(v.grad).all() and torch.isfinite(vectors.grad).all() and not v.grad[:, 0].any()
