"""Continual-CLIP: frozen zero-shot CLIP, the floor of every table."""

from bench import Task
from methods.shared.classifiers import TextClassifier


class ZeroShot(TextClassifier):
    """Continual-CLIP: frozen zero-shot CLIP; a task only adds class names.

    Paper: "CLIP model is an Efficient Continual Learner", V. Thengane, S. Khan, M. Hayat, F. Khan, arXiv 2210.03114.

    Class vector t_c = norm(mean over templates of norm(g(template(c)))); logit = exp(logit scale) * cos(f(x), t_c).
    Nothing is trained and nothing is kept.

    Deviations from the authors' code: templates are the protocol's, averaged when there are several (CLAP4CLIP's and
    ZSCL's rule; the original uses one); class names are written with spaces instead of underscores.
    """

    paper = '"CLIP model is an Efficient Continual Learner", Thengane et al., arXiv 2210.03114 (2022)'
    trains = "nothing: both encoders are frozen, tasks only add class names"
    needs = ("features", "texts")
    conformance = "checked: tokens, logits and probabilities as classes arrive, template ensemble"

    def learn(self, task: Task) -> None:
        """Nothing to learn: the class vectors of all classes exist from the start."""
