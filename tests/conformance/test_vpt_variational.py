"""Variational prompt tuning against its authors' trainer: the same posterior, draws and batches."""

import pytest
import torch

from methods.text_prompts.variational_prompts import VariationalPrompts, VariationalPromptsSettings
from tests.conformance.stored_batches import StoredOrder, all_seen, fit_stored, load, one_task, optimiser_settings

THEIRS = {
    "ctx": "context",
    "meta_net.weight_mean.module.": "mean_network.",
    "meta_net.weight_log_variance.module.": "log_variance_network.",
    "mean_posterior": "mean",
    "std_posterior": "log_variance",
}


class StoredNoise(StoredOrder):
    """The draws eps of every step, and those of the prediction."""

    def __init__(self, vectors):
        super().__init__("vpt")
        self.vectors = vectors

    def normal(self, shape, *purpose):
        match purpose:
            case ("posterior", _phase, _task, step):
                noise = self.vectors.tensor("eps_train")[step]
            case ("test posterior",):
                noise = self.vectors.tensor("eps_test")
            case ("context",):  # overwritten by the stored weights
                return torch.zeros(shape)
            case _:
                raise KeyError(purpose)
        assert tuple(noise.shape) == tuple(shape)
        return noise


@pytest.mark.vectors("vpt-variational", methods=("vpt",))
def test_loss_gradients_steps_and_predictions(vectors, tiny):
    params = vectors.params
    names = [tiny.class_names[c] for c in vectors["classes"]]
    position = {int(c): k for k, c in enumerate(vectors["classes"])}
    rows = torch.from_numpy(vectors["batches"]).flatten()
    images, labels = tiny.features()[rows], torch.tensor([position[int(c)] for c in tiny.labels[rows]])
    settings = VariationalPromptsSettings(
        posterior=params["variant"],
        context_words=None if params["context_random"] else params["context_text"],
        context_length=params["n_ctx"],
        n_draws=params["n_draws"],
        kl_weight=params["kl_weight"],
        **optimiser_settings(params["optimiser"], params["batch_size"]),
    )
    vpt = all_seen(VariationalPrompts(settings, tiny.backbone, one_task(names), StoredNoise(vectors)))
    for name, value in vpt.named_parameters():
        load(value, vectors.tensor(f"init.{theirs(name)}"))

    first = slice(0, params["batch_size"])
    vpt.loss(vpt.text_of(vpt.seen), images[first], labels[first], "", 0, 0).backward()
    actual = {f"grad0.{theirs(name)}": value.grad.clone() for name, value in vpt.named_parameters()}
    vpt.zero_grad()
    actual["losses"] = fit_stored(vpt, images, labels)
    actual |= {f"final.{theirs(name)}": value for name, value in vpt.named_parameters()}
    with torch.no_grad():
        vpt.store_class_vectors()
    test = tiny.features()[torch.from_numpy(vectors["test_idx"])]
    # among the classes seen the scores are log-probabilities up to a constant of each image
    actual["test_log_probs"] = vpt.logits(test, range(len(names))).log_softmax(dim=-1)
    vectors.check(actual)


def theirs(name: str) -> str:
    """The authors' name of a parameter."""
    return next(their + name.removeprefix(ours) for their, ours in THEIRS.items() if name.startswith(ours))
