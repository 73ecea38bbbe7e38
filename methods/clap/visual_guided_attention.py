"""CLAP4CLIP's visual-guided attention: the class texts look at each other and at the images of the batch.

One post-norm decoder layer of a Transformer (LN = layer norm, d the joint width):

    a = LN(q + SelfAttention(q))               a class sees the classes of its own task only
    c = LN(a + CrossAttention(a, images))      every class sees every image of the batch
    v = LN(c + W_2 gelu(W_1 c))                (K, d), what is added to the text features

Because of the last layer norm |v_k| is about sqrt(d), against 1 for a text feature.
"""

import torch
import torch.nn.functional as F


class VisualGuidedAttention(torch.nn.Module):
    """Text features (K, d) as queries, image features (b, d) as memory; shared by all tasks."""

    def __init__(self, width: int, heads: int, feed_forward: int = 2048, dropout: float = 0.1):
        super().__init__()
        self.layer = torch.nn.TransformerDecoderLayer(width, heads, feed_forward, dropout, activation=F.gelu, batch_first=True)

    def forward(self, text: torch.Tensor, images: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        """(K, d) of queries (K, d) that belong to `tasks` (K,), with images (b, d) as memory."""
        hidden = tasks.unsqueeze(1) != tasks  # (K, K): a query does not see those of other tasks
        return self.layer(text.unsqueeze(0), images.unsqueeze(0), tgt_mask=hidden).squeeze(0)
