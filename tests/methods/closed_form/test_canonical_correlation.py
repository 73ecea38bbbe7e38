"""Canonical correlation against a literal transcription with all D x D matrices."""

import pytest
import torch
import torch.nn.functional as F

from methods.closed_form.canonical_correlation import RunningCorrelation

RULES = {"ridge": 1e-3, "floor": 1e-3, "energy": 0.999, "least_rho": 1e-6, "whiten_once": False}


def drawn(n: int, classes: int, width: int = 10, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (n, D) around their class's own centre, labels in which every class occurs, and texts (C, D)."""
    generator = torch.Generator().manual_seed(seed)
    centres, texts = torch.randn(2, classes, width, generator=generator, dtype=torch.float64)
    labels = torch.arange(n)[torch.randperm(n, generator=generator)] % classes
    return centres[labels] + 0.5 * torch.randn(n, width, generator=generator, dtype=torch.float64), labels, texts


def literal(images, labels, texts, batch_size, pooled=False, **rules):
    """Image map and text map (D, r), means, rho, by definition."""
    rules, t = {**RULES, **rules}, texts[labels]
    size = len(images) if pooled else batch_size
    szz = stt = szt = 0
    for z, own in zip(images.split(size), t.split(size)):
        zc, tc = z - z.mean(dim=0), own - own.mean(dim=0)
        szz, stt, szt = szz + zc.T @ zc, stt + tc.T @ tc, szt + zc.T @ tc
    n, identity = len(images), torch.eye(images.shape[1], dtype=torch.float64)

    def root(scatter):
        values, vectors = torch.linalg.eigh(scatter / (n - 1) + rules["ridge"] * identity)
        return vectors @ torch.diag(values.clamp_min(rules["floor"]) ** -0.5) @ vectors.T

    wz, wt = root(szz), root(stt)
    c = wz @ szt / (n - 1) @ wt
    values, vectors = torch.linalg.eigh(c @ c.T)
    kappa, v = values.flip(0).clamp_min(0), vectors.flip(1)
    r = max(1, int((kappa.cumsum(0) / kappa.sum() <= rules["energy"]).sum()))
    rho, v = kappa[:r].sqrt(), v[:, :r]
    u = c.T @ v if rules["whiten_once"] else wt @ c.T @ v
    return images.mean(dim=0), wz @ v * rho, t.mean(dim=0), wt @ (u / rho.clamp_min(rules["least_rho"])) * rho, rho


def cosines(found, images, texts):
    image_mean, image_map, text_mean, text_map, _ = found
    return F.normalize((images - image_mean) @ image_map, dim=-1) @ F.normalize((texts - text_mean) @ text_map, dim=-1).T


@pytest.mark.parametrize(
    "rules", [{}, {"whiten_once": True}, {"energy": 0.8}, {"floor": 0.5}, {"ridge": 1.0}, {"least_rho": 0.9}, {"energy": 1.0}]
)
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("classes", [3, 6, 14])  # with 14 texts in 10 dimensions P has no independent rows
def test_it_is_the_definition_with_small_matrices(classes, pooled, rules):
    images, labels, texts = drawn(90, classes)
    running = RunningCorrelation(10, pooled)
    for part in (slice(0, 28), slice(28, 90)):  # two tasks; the first one's batches are whole
        running.add(images[part], labels[part], classes, batch_size=7)
    found, wanted = running.directions(texts, **{**RULES, **rules}), literal(images, labels, texts, 7, pooled, **rules)
    compared = 2 if rules.get("energy") == 1.0 else len(wanted[4])  # directions without correlation are anybody's
    torch.testing.assert_close(found.correlations[:compared], wanted[4][:compared], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.image_mean, wanted[0])
    torch.testing.assert_close(found.text_mean, wanted[2])
    if compared == len(wanted[4]):
        others = drawn(5, 4, seed=1)
        torch.testing.assert_close(
            cosines(found, others[0], torch.cat([texts, others[2]])),  # also texts that no image has had
            cosines(wanted, others[0], torch.cat([texts, others[2]])),
            rtol=1e-5, atol=1e-6,
        )  # fmt: skip


def test_classes_are_added_as_they_come():
    """Rows of classes that have not come change nothing."""
    images, labels, texts = drawn(60, 6)
    order = labels.argsort(stable=True)
    whole, growing = RunningCorrelation(10), RunningCorrelation(10)
    for first in (0, 3):
        own = order[(labels[order] >= first) & (labels[order] < first + 3)]
        whole.add(images[own], labels[own], 6, 11)
        growing.add(images[own], labels[own], first + 3, 11)
        found, grown = whole.directions(texts, **RULES), growing.directions(texts[: first + 3], **RULES)
        torch.testing.assert_close(cosines(found, images, texts), cosines(grown, images, texts))


def test_only_pooled_statistics_are_free_of_batches_and_their_order():
    images, labels, texts = drawn(60, 4)
    images = images + labels.unsqueeze(1)  # so that means of batches differ
    backwards = torch.arange(59, -1, -1)
    for pooled in (True, False):
        scores = []
        for order, size in ((slice(None), 7), (backwards, 7), (slice(None), 60)):
            running = RunningCorrelation(10, pooled)
            running.add(images[order], labels[order], 4, size)
            scores.append(cosines(running.directions(texts, **RULES), images, texts))
        for other in scores[1:]:
            assert torch.allclose(scores[0], other) == pooled


def test_two_classes_have_one_direction_which_stays_whatever_the_energy():
    """As released, the rule leaves out the direction that crosses the threshold: here the only one, and all scores would be 0."""
    images, labels, texts = drawn(40, 2)
    running = RunningCorrelation(10)
    running.add(images, labels, 2, 8)
    for energy in (0.5, 0.999):
        found = running.directions(texts, **{**RULES, "energy": energy})
        assert len(found.correlations) == 1 and float(found.correlations) > 0.1
        scores = cosines(found, images, texts)
        assert bool((scores[:, 0] != 0).all()) and float((scores.argmax(dim=1) == labels).double().mean()) > 0.9


def test_where_no_batch_held_two_classes_nothing_is_correlated():
    images, labels, texts = drawn(40, 2)
    for chosen, size in ((labels == 1, 8), (labels >= 0, 1)):  # one class; batches of one image
        running = RunningCorrelation(10)
        running.add(images[chosen], labels[chosen], 2, size)
        found = running.directions(texts, **RULES)
        assert found.correlations.shape == (0,) and found.image_map.shape == found.text_map.shape == (10, 0)
        torch.testing.assert_close(found.image_mean, images[chosen].mean(dim=0))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("rules", [{}, {"floor": 0.5}, {"ridge": 1.0}])
def test_few_images_are_solved_among_themselves_and_go_on_to_the_last_bit(pooled, rules):
    images, labels, texts = drawn(60, 4, width=40)
    running, resumed = RunningCorrelation(40, pooled), RunningCorrelation(40, pooled)
    for first, last, few in ((0, 10, True), (10, 15, True), (15, 60, False)):
        running.add(images[first:last], labels[first:last], 4, batch_size=5)
        assert running.image_scatter.is_few == few
        found = running.directions(texts, **{**RULES, **rules})
        wanted = literal(images[:last], labels[:last], texts, 5, pooled, **rules)
        torch.testing.assert_close(found.correlations, wanted[4], rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(cosines(found, images, texts), cosines(wanted, images, texts), rtol=1e-5, atol=1e-6)
        state = running.state_dict()
        for name, value in state.items():  # as Method.load_state_dict does
            resumed.get_buffer(name).data = torch.empty_like(value)
        resumed.load_state_dict(state)
        again = resumed.directions(texts, **{**RULES, **rules})
        assert torch.equal(found.image_map, again.image_map) and torch.equal(found.text_map, again.text_map)
        running, resumed = resumed, RunningCorrelation(40, pooled)
