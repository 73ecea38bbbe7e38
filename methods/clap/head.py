"""CLAP4CLIP's head: from text features and the images of the batch to a distribution for every class.

    u_k    = h_k + v_k,  v = attention(h; x_1 .. x_B)          (K, d); u = h without attention
    q(z_k) = Normal(mu_i(u_k), sigma_i(u_k)^2)                 i: the task of class k

The visual-guided attention lets the class texts look at each other and at the images. It is one post-norm decoder layer of a
Transformer (LN = layer norm, d the joint width), on queries q, the text features:

    a = LN(q + SelfAttention(q))               a class sees the classes of its own task only
    c = LN(a + CrossAttention(a, images))      every class sees every image of the batch
    v = LN(c + W_2 gelu(W_1 c))                (K, d), what is added to the text features

Because of the last layer norm |v_k| is about sqrt(d), against 1 for a text feature.
"""

import torch
import torch.nn.functional as F

from bench import Draws
from methods.clap.adapters import Gaussian, ProbabilisticAdapters

TOKEN_DEVIATION = 0.02  # of the normal draws that task tokens start from


class VisualGuidedAttention(torch.nn.Module):
    """Text features (K, d) as queries, image features (b, d) as memory; shared by all tasks."""

    def __init__(self, width: int, heads: int, feed_forward: int = 2048, dropout: float = 0.1):
        super().__init__()
        self.layer = torch.nn.TransformerDecoderLayer(width, heads, feed_forward, dropout, activation=F.gelu, batch_first=True)

    def forward(self, text: torch.Tensor, images: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        """(K, d) of queries (K, d) that belong to `tasks` (K,), with images (b, d) as memory."""
        hidden = tasks.unsqueeze(1) != tasks  # (K, K): a query does not see those of other tasks
        return self.layer(text.unsqueeze(0), images.unsqueeze(0), tgt_mask=hidden).squeeze(0)


class ClapHead(torch.nn.Module):
    """Attention (None: without), adapters that grow with the tasks, and, if wanted, a learned query for each task."""

    def __init__(
        self, width: int, attention: VisualGuidedAttention | None, adapters: ProbabilisticAdapters,
        adapter_per_task: bool = True, task_tokens: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.width, self.adapter_per_task, self.with_tokens = width, adapter_per_task, task_tokens
        self.attention = attention
        self.adapters = adapters
        self.tokens = torch.nn.ParameterList()  # (d,) each

    def grow(self, task: int, draws: Draws) -> None:
        """What a new task needs."""
        if self.adapter_per_task or not len(self.adapters):
            with draws.initialising("adapters", task):
                self.adapters.grow()
        if self.with_tokens:
            self.tokens.append(torch.nn.Parameter(TOKEN_DEVIATION * draws.normal((self.width,), "task token", task)))

    def of_earlier_tasks(self) -> list[torch.nn.Parameter]:
        """The adapters and tokens of all tasks but the newest."""
        return self.adapters.older() + list(self.tokens)[:-1]

    def attend(self, text: torch.Tensor, images: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        """u (K, d): text features h (K, d) plus what the attention adds to them in view of the images (b, d).

        A token is a query of its task; what the attention gives for it is added to all classes of the task.
        """
        if self.attention is None:
            return text
        if not len(self.tokens):
            return text + self.attention(text, images, tasks)
        tokens = torch.stack(list(self.tokens))  # (T, d)
        owners = torch.arange(len(tokens), device=tasks.device)
        added = self.attention(torch.cat([text, tokens]), images, torch.cat([tasks, owners]))
        added, of_token = added[: len(text)], added[len(text) :]
        learned = (tasks < len(tokens)).unsqueeze(1)  # a task to come has no token yet
        return text + added + learned * of_token[tasks.clamp(max=len(tokens) - 1)]

    def distributions(self, u: torch.Tensor, tasks: torch.Tensor) -> Gaussian:
        """q of classes with attended text features u (K, d), by the adapters of their tasks (K,), ascending.

        Classes of tasks to come get the newest adapters.
        """
        last = len(self.adapters) - 1
        return self.adapters(u, tasks.clamp(max=last) if self.adapter_per_task else torch.zeros_like(tasks))
