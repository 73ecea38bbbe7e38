"""CLAP without variational inference: the ablation "w/o VI", deterministic."""

from dataclasses import dataclass

from bench import setting
from methods.clap.clap import Clap
from methods.clap.clap_coop import ClapCoOp, ClapCoOpSettings
from methods.clap.settings import ClapSettings

PAPER = "paper, w/o VI"


@dataclass(frozen=True)
class ClapNoVISettings(ClapSettings):
    variational: bool = setting(False, "distributions; off: their means only, no sampling and no KL term", PAPER)
    attention_heads: int = setting(0, "heads of the attention; 0: one for every 64 dimensions")
    adapter_layer_norm: bool = setting(True, "a layer norm in front of each adapter")


class ClapNoVI(Clap):
    """CLAP without variational inference: z_k = mu_i(u_k), nothing is sampled and there is no KL term.

    Everything else as in `clap` (methods/clap/clap.py), R included. One head for every 64 dimensions and a layer norm before each
    adapter: so it is in the compiled modules of one stage of the authors' development, the only trace of this variant.
    """

    Settings = ClapNoVISettings
    settings: ClapNoVISettings
    trains = "attention over texts and images, one adapter per task; both encoders and the logit scale are frozen"
    conformance = "no vectors: the equations of clap with z = mu, which unit tests transcribe"


@dataclass(frozen=True)
class ClapCoOpNoVISettings(ClapCoOpSettings):
    variational: bool = setting(False, "distributions; off: their means only, no sampling and no KL term", PAPER)


class ClapCoOpNoVI(ClapCoOp):
    """CLAP with CoOp's prompts and without variational inference: z_k = mu_i(u_k), no sampling, no KL term.

    Everything else as in `clap-coop` (methods/clap/clap_coop.py).
    """

    Settings = ClapCoOpNoVISettings
    settings: ClapCoOpNoVISettings
    trains = "text context, attention over texts and images, one adapter per task; both encoders are frozen"
    conformance = "no vectors: the equations of clap-coop with z = mu, which unit tests transcribe"
