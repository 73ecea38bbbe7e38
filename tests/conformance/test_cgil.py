"""CGIL against a run of its authors' code: the same draws and initial weights, number by number."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.learning.evaluation import evaluate
from bench.results import accuracy
from bench.system.randomness import Draws
from methods.cgil import vae
from methods.cgil.alignment import HAND_MADE
from methods.cgil.cgil import CGIL, CGILSettings
from methods.shared.generators import Gaussians, fit_mixture


@pytest.mark.vectors("cgil")
def test_cgil_reproduces_the_authors_run(vectors, tiny, monkeypatch):
    names = [str(name) for name in vectors["class_names"]]
    labels = torch.from_numpy(vectors["labels"].astype(np.int64))
    stream = tiny.stream(names, vectors["classes_per_task"].tolist(), labels, templates=[HAND_MADE])
    draws = RunDraws(vectors)
    method = CGIL(settings(vectors.params), tiny.backbone, stream.scenario, draws)
    method.prompts.context.data.copy_(vectors.tensor("init_prompts"))
    method.prompts.generator.load_state_dict(vectors.group("init_gen."))
    fits = RecordedFits(monkeypatch, lambda c: {k: v[c] for k, v in vectors.group("init_vae.").items()})
    steps = RecordedAlignment(monkeypatch, method)

    tests = torch.isin(labels, torch.arange(len(names))) & ~tiny.is_train
    actual = {
        "tokens_hand": tiny.backbone.tokenize(stream.scenario.prompts(range(len(names)), HAND_MADE)),
        "tokens_prompt": method.prompts.prompts.tokens,
        "image_features": tiny.features(),
        "text_features_hand": method.prompts.hand_made,
        "keys_init": method.prompts.keys(len(names)),
        "gen_init_out": method.prompts.generator(method.prompts.hand_made),
    }
    class_incremental, task_incremental = [], []
    for task in stream.tasks:
        steps.clear()
        method.learn(task.for_training())
        actual |= {f"t{task.index}_{name}": value for name, value in steps.results(vectors).items()}
        actual |= {f"t{task.index}_{name}": value for name, value in learned(method, task, tiny.features()[tests]).items()}
        for table, row in zip((class_incremental, task_incremental), percentages(method, stream, task.index)):
            table.append(row)
    actual |= fits.run_results(vectors)
    actual |= {f"vae_{name}": method.replay.statistics[:, i] for i, name in ((0, "min"), (2, "mu"), (3, "std"))}
    actual["vae_max"] = method.replay.statistics[:, :2].sum(dim=1)  # minimum + range
    actual |= {"acc_class_il": class_incremental, "acc_task_il": task_incremental}
    actual |= {"ci_transfer": accuracy.ci_transfer(class_incremental), "last_acc": accuracy.last(class_incremental)}
    actual |= {"transfer_masked": accuracy.ci_transfer(task_incremental), "last_acc_til": accuracy.last(task_incremental)}
    actual |= several_batches(vectors, monkeypatch)
    actual |= closed_forms(vectors, tiny.features()[(labels == 0) & tiny.is_train])
    vectors.check(actual)


# -- the stored run, in the product's terms ---------------------------------------------------------------------


def settings(params: dict) -> CGILSettings:
    """`unseen_scale="raw"` is the released code's; the harness's own default is read off in `learned`."""
    fit, alignment, prompt = params["vae"], params["alignment"], params["learned_prompt"]
    return CGILSettings(
        context={(True, True): "combo", (False, True): "generated", (True, False): "learned"}[
            prompt["n_learned"] > 0, prompt["n_generated"] > 0
        ],
        n_context=prompt["n_learned"],
        alignment_lr=alignment["optimiser"]["lr"],
        alignment_epochs=alignment["n_epochs"],
        alignment_batch=alignment["batch_size"],
        samples_per_class=alignment["samples_per_class"],
        vae_epochs=fit["n_epochs"],
        vae_lr=fit["optimiser"]["lr"],
        vae_hidden=fit["hidden"],
        vae_latent=fit["latent"],
        vae_batch=fit["batch_size"],
        unseen_scale="raw",
    )


class RunDraws(Draws):
    """The draws of the authors' run, by purpose."""

    def __init__(self, vectors):
        super().__init__("conformance", "cgil", 0)
        self.vectors = vectors

    def normal(self, shape, *purpose):
        match purpose:
            case ("vae noise", c, epoch):
                return stored(self.vectors.tensor("vae_noise")[c, epoch], shape)
            case ("replay", task, epoch):
                return stored(self.vectors.tensor(f"t{task}_z")[epoch], shape)
            case ("context",):  # overwritten by the stored weights
                return torch.zeros(shape)
        raise KeyError(purpose)

    def permutation(self, n, *purpose):
        match purpose:
            case ("vae order", c, epoch):
                return stored(torch.from_numpy(self.vectors["vae_perm"][c, epoch].astype(np.int64)), (n,))
            case ("alignment order", task, epoch):
                return stored(torch.from_numpy(self.vectors[f"t{task}_perm"][epoch].astype(np.int64)), (n,))
        raise KeyError(purpose)


class SeveralBatchesDraws(Draws):
    """The draws of the single fit with several batches per epoch; noise is stored for the steps that were made."""

    def __init__(self, vectors):
        super().__init__("conformance", "cgil", 0)
        self.order = torch.from_numpy(vectors["mb_perm"].astype(np.int64))
        self.noise = vectors.tensor("mb_noise").reshape(len(self.order), -1, vectors["mb_noise"].shape[-1])

    def permutation(self, n, *purpose):
        return stored(self.order[purpose[-1]], (n,))

    def normal(self, shape, *purpose):
        noise = self.noise[purpose[-1]]
        unused = torch.zeros(shape[0] - len(noise), shape[1])  # a batch of one row is skipped
        return stored(torch.cat([noise, unused]), shape)


def stored(draw: torch.Tensor, shape) -> torch.Tensor:
    assert tuple(draw.shape) == tuple(shape), f"the run asks for {tuple(shape)}, stored is {tuple(draw.shape)}"
    return draw


def named(vector: torch.Tensor, sizes: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    """Weights (P,) of one VAE under the authors' names."""
    shapes = {name: p.shape for name, p in vae.VAE(*sizes).named_parameters()}
    pieces = vae.unstack(vector.unsqueeze(0), list(shapes.values()))
    return {f"{name[:3]}.{name}": piece[0] for name, piece in zip(shapes, pieces)}


# -- what happens inside `learn` --------------------------------------------------------------------------------


class RecordedFits:
    """Starts every VAE from the stored weights, and notes what each fit computes."""

    def __init__(self, monkeypatch, initial):
        self.steps, self.rates, self.gradients, self.weights = [], [], [], []  # one list per fit
        losses, step, train_rows = vae.losses, vae.RowAdam.step, vae.VAEs.train_rows

        def new_network(vaes, c, draws):
            network = vae.VAE(*vaes.sizes)
            for name, parameter in network.named_parameters():
                parameter.data.copy_(initial(c)[f"{name[:3]}.{name}"])
            return network

        def recorded_losses(x, reconstruction, mu, s, mask):
            result = losses(x, reconstruction, mu, s, mask)
            self.steps[-1].append([t.detach().clone() for t in (x, mu, s, reconstruction, torch.stack(result, dim=-1))])
            return result

        def recorded_step(adam, gradients, rate):
            self.gradients[-1].append(torch.cat([gradient.flatten(1) for gradient in gradients], dim=1))
            self.rates[-1].append(rate)
            step(adam, gradients, rate)

        def recorded_train_rows(vaes, weights, *rest):
            for record in (self.steps, self.rates, self.gradients):
                record.append([])
            train_rows(vaes, weights, *rest)
            self.weights.append(weights.clone())

        monkeypatch.setattr(vae, "losses", recorded_losses)
        monkeypatch.setattr(vae.RowAdam, "step", recorded_step)
        monkeypatch.setattr(vae.VAEs, "train_rows", recorded_train_rows)
        monkeypatch.setattr(vae.VAEs, "new_network", new_network)

    def run_results(self, vectors) -> dict:
        fit = vectors.params["vae"]
        sizes = (vectors.params["embed_dim"], fit["hidden"], fit["latent"])
        elbo = torch.cat([torch.stack([step[-1] for step in steps], dim=1) for steps in self.steps])  # (N, steps, 2)
        first = dict(zip(("xn", "z_mu", "z_logvar", "x_rec"), (t[0] for t in self.steps[0][0])))
        excluded = vectors.params["excluded_from_vae_final_l2"]
        norms = [named(row, sizes) for rows in self.weights for row in rows]
        order = [str(name) for name in vectors["vae_param_names"]]
        norms = np.array([[float(weights[name].norm()) for name in order] for weights in norms])
        drift = [order.index(name) for name in excluded]  # no true gradient: whatever is stored
        norms[:, drift] = vectors["vae_final_l2"][:, drift]
        return {
            **{f"vae0_first_{name}": value for name, value in first.items()},
            **{f"vae0_grad1.{name}": value for name, value in named(self.gradients[0][0][0], sizes).items()},
            **{f"vae0_final.{name}": value for name, value in named(self.weights[0][0], sizes).items()},
            "vae_elbo": elbo.unflatten(1, (fit["n_epochs"], -1)).sum(dim=2),
            "vae_lr": self.rates[0][:: len(self.rates[0]) // fit["n_epochs"]],
            "vae_final_l2": norms,
        }


class RecordedAlignment:
    """Notes the replayed embeddings, the loss of every step and the gradients of the first one."""

    def __init__(self, monkeypatch, method):
        self.method = method
        cross_entropy, sample, adamw_step = F.cross_entropy, method.replay.sample, torch.optim.AdamW.step

        def recorded_cross_entropy(logits, labels):
            loss = cross_entropy(logits, labels)
            self.logits.append(logits.detach().clone())
            self.labels.append(labels.clone())
            self.losses.append(float(loss.detach()))
            return loss

        def recorded_sample(*arguments):
            self.samples.append(sample(*arguments))
            return self.samples[-1]

        def recorded_step(optimizer, *rest):
            prompts = self.method.prompts
            if optimizer.param_groups[0]["params"][0] is not next(prompts.parameters()):
                return adamw_step(optimizer, *rest)  # of the generative models
            self.gradients.append([prompts.context.grad.clone(), *(p.grad.clone() for p in prompts.generator.parameters())])
            return adamw_step(optimizer, *rest)

        monkeypatch.setattr(F, "cross_entropy", recorded_cross_entropy)
        monkeypatch.setattr(method.replay, "sample", recorded_sample)
        monkeypatch.setattr(torch.optim.AdamW, "step", recorded_step)
        self.clear()

    def clear(self):
        self.logits, self.labels, self.losses, self.samples, self.gradients = [], [], [], [], []

    def results(self, vectors) -> dict:
        rows = vectors.params["first_batch_rows_stored"]
        n = len(self.samples[0])
        context, *generator = self.gradients[0]
        return {
            "replay_first": self.samples[0][:, :2],
            "first_batch_logits": self.logits[0][:rows],
            "first_batch_labels": self.labels[0][:rows],
            "align_loss": self.losses,
            "align_grad_prompt_step1": context[:n],
            "align_grad_gen_last_bias_step1": generator[-1],
            "align_grad_norm_step1": torch.stack([gradient.norm() for gradient in (*context[:n], *generator)]),
        }


# -- what comes out ---------------------------------------------------------------------------------------------


def learned(method: CGIL, task, test_features: torch.Tensor) -> dict:
    """State and logits after a task, with unseen classes at raw length and at unit length."""
    n, every_class = task.classes[-1] + 1, range(len(method.class_vectors))
    results = {
        "prompts": method.prompts.context.detach().clone(),
        "gen_out": method.prompts.generator(method.prompts.hand_made),
        "keys": method.prompts.keys(n),
        "seen_logits": method.logits(test_features, range(n)),
        "future_logits": method.logits(test_features, every_class),
    }
    faithful = method.settings
    method.settings = dataclasses.replace(faithful, unseen_scale="unit")
    method.update_class_vectors(n)
    results["future_logits_unit"] = method.logits(test_features, every_class)
    method.settings = faithful
    method.update_class_vectors(n)
    return results


def percentages(method: CGIL, stream, after_task: int) -> tuple[list[float], list[float]]:
    """One row of the class-incremental table (seen classes; all of them for future tasks) and of the masked one."""
    correct = {(cell.eval_task, cell.candidates): cell.correct for cell in evaluate(method, stream, after_task)}
    size = [len(task.test) for task in stream.tasks]
    candidates = ["seen" if task.index <= after_task else "all" for task in stream.tasks]
    return (
        [100 * correct[k, c] / size[k] for k, c in enumerate(candidates)],
        [100 * correct[k, "task"] / size[k] for k in range(len(size))],
    )


def several_batches(vectors, monkeypatch) -> dict:
    """A VAE fitted alone on more rows than a batch holds."""
    params, initial = vectors.params["multi_batch_vae"], vectors.group("mb_init.")
    hidden, d = initial["enc.encoder.0.weight"].shape
    latent = initial["dec.decoder.0.weight"].shape[1]
    fits = RecordedFits(monkeypatch, lambda c: initial)
    vaes = vae.VAEs(d, hidden, latent, params["n_epochs"], params["optimiser"]["lr"], params["batch_size"])
    vaes.fit([0], [vectors.tensor("mb_x")], SeveralBatchesDraws(vectors), check=lambda loss, what: None)
    return {
        "mb_elbo": torch.cat([step[-1] for step in fits.steps[-1]]),
        "mb_lr": fits.rates[-1],
        **{f"mb_final.{name}": value for name, value in named(fits.weights[-1][0], vaes.sizes).items()},
    }


def closed_forms(vectors, features: torch.Tensor) -> dict:
    """The Gaussian of class 0 and a mixture from the stored centres."""
    gaussians = Gaussians(features.shape[1])
    gaussians.fit([0], [features], draws=None, check=None)
    mixture = fit_mixture(
        vectors.tensor("mb_x"), vectors.tensor("mog_init_mu"), vectors.params["mog"]["max_iterations_argument"]
    )
    return {
        "gauss_mean": gaussians.means[0],
        "gauss_std": gaussians.deviations[0],
        **dict(zip(("mog_pi", "mog_mu", "mog_var", "mog_ll"), mixture)),
    }
