"""Fine-tuning that works against forgetting in the space of the weights alone: WiSE-FT, weight constraint, ensemble."""

from dataclasses import dataclass

from bench import Range, setting
from methods.fine_tuning.finetune import FineTune, FineTuneSettings

ZSCL_SCRIPTS = "ZSCL's scripts"


@dataclass(frozen=True)
class WiSEFTSettings(FineTuneSettings):
    merge_alpha: float = setting(
        0.8, "share of the trained weights in the merge after each task; 1: off", ZSCL_SCRIPTS, search=Range(0.2, 1.0)
    )


class WiSEFT(FineTune):
    """WiSE-FT: after each task the trained weights are merged with those from its start.

    Paper: "Robust fine-tuning of zero-shot models", M. Wortsman, G. Ilharco, J. W. Kim, M. Li, S. Kornblith, R. Roelofs,
    R. Gontijo-Lopes, H. Hajishirzi, A. Farhadi, H. Namkoong, L. Schmidt, CVPR 2022, arXiv 2109.01903; as a continual
    baseline in ZSCL (arXiv 2303.06628).

        theta <- a theta_trained + (1 - a) theta_other,    a = merge_alpha = 0.8, for every parameter tensor

    theta_other are the weights at the task's start, or the initial CLIP's (`merge_with` zero-shot). The merged weights
    are evaluated and start the next task. Training, losses, deviations: `finetune`.
    """

    Settings = WiSEFTSettings
    settings: WiSEFTSettings
    paper = '"Robust fine-tuning of zero-shot models", Wortsman et al., CVPR 2022, arXiv 2109.01903'
    conformance = "checked: training, merge with the task's start and with the initial CLIP, ensemble with pull, logits"


@dataclass(frozen=True)
class WeightConstraintSettings(FineTuneSettings):
    l2_weight: float = setting(
        1.0,
        "lambda of the pull towards the weights at the task's start; 0: off",
        ZSCL_SCRIPTS,
        search=Range(0.05, 20.0, log=True),
    )


class WeightConstraint(FineTune):
    """L2 weight constraint (WC): fine-tuning with a quadratic pull towards the weights at the task's start.

    Paper: part of ZSCL (arXiv 2303.06628) and a baseline of it.

        L = L_ce + lambda sum over all parameter tensors of ||theta - theta_start||^2

    A plain sum, so its scale depends on the model's size; no weight is more important than another. It is a term of the
    loss and passes through Adam's normalisation, unlike decoupled weight decay. Everything else: `finetune`.
    """

    Settings = WeightConstraintSettings
    settings: WeightConstraintSettings
    conformance = "checked: distance, rates, losses, gradients, weights along the path, logits"


@dataclass(frozen=True)
class WeightEnsembleSettings(FineTuneSettings):
    average_every: int = setting(
        100, "I: updates between two snapshots of the weight ensemble; 0: off", ZSCL_SCRIPTS, search=Range(2, 100, log=True)
    )


class WeightEnsemble(FineTune):
    """Weight ensemble (WE): fine-tuning whose result is the mean of the weights along the task's path.

    Paper: part of ZSCL (arXiv 2303.06628) and a baseline of it.

    avg = mean(theta_start, theta after updates 0, I, 2I, ...), counted equally; avg is evaluated and starts the next
    task, the training itself never sees it (weight_space.py). Everything else: `finetune`.
    """

    Settings = WeightEnsembleSettings
    settings: WeightEnsembleSettings
    recipes = {
        **FineTune.recipes,
        **{
            pattern: {**recipe, "average_every": 4 if pattern == "mini*" else 10}
            for pattern, recipe in FineTune.recipes.items()
            if not pattern.startswith("mtil")
        },
    }
    quick = {**FineTune.quick, "average_every": 2}
    conformance = "checked: rates, losses, gradients, weights along the path, saved mean, logits"
