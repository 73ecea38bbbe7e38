"""CLAP's equations written out slowly: one class, one sample, one image at a time, from the specification alone."""

import math

import torch


def attention(layer, text, images, tasks):
    """(K, d): LN(c + W2 gelu(W1 c)) with c = LN(a + Cross(a, images)), a = LN(q + Self(q)) among classes of one task."""
    rows = []
    for k in range(len(text)):
        own = [j for j in range(len(text)) if tasks[j] == tasks[k]]
        a = norm(layer.norm1, text[k] + heads(layer.self_attn, text[k], [text[j] for j in own]))
        c = norm(layer.norm2, a + heads(layer.multihead_attn, a, list(images)))
        inner = layer.linear1.weight @ c + layer.linear1.bias
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        rows.append(norm(layer.norm3, c + layer.linear2.weight @ inner + layer.linear2.bias))
    return torch.stack(rows)


def heads(attention, query, memory):
    """Multi-head attention of one query (d,) to a list of vectors."""
    d, n = len(query), attention.num_heads
    w, b = attention.in_proj_weight, attention.in_proj_bias
    q = w[:d] @ query + b[:d]
    keys = [w[d : 2 * d] @ m + b[d : 2 * d] for m in memory]
    values = [w[2 * d :] @ m + b[2 * d :] for m in memory]
    out = []
    for part in torch.arange(d).split(d // n):
        weight = torch.stack([q[part] @ key[part] / math.sqrt(d // n) for key in keys]).softmax(dim=0)
        out.append(sum(p * value[part] for p, value in zip(weight, values)))
    return attention.out_proj.weight @ torch.cat(out) + attention.out_proj.bias


def norm(layer, x):
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * layer.weight + layer.bias


def adapter(pair, u):
    """One of a pair's maps on one class: a layer norm where there is one, then W u + b."""
    if isinstance(pair[0], torch.nn.LayerNorm):
        u = norm(pair[0], u)
    return pair[1].weight @ u + pair[1].bias


def posterior(clap, u, task):
    """mu (d,) and sigma (d,) of one class; sigma None without variational inference."""
    pair = task if clap.settings.adapter_per_task else 0
    mu = adapter(clap.head.adapters.means[pair], u)
    if not clap.settings.variational:
        return mu, None
    return mu, 0.999 * torch.log1p(torch.exp(adapter(clap.head.adapters.deviations[pair], u))) + 0.001


def divergence(mu, sigma, mean=None, deviation=None):
    """sum_d KL(N(mu, sigma^2) || N(mean, deviation^2))."""
    mean, deviation = (0 * mu, 0 * mu + 1) if mean is None else (mean, deviation)
    total = 0.0
    for m, s, a, b in zip(mu, sigma, mean, deviation):
        total = total + torch.log(b / s) + (s**2 + (m - a) ** 2) / (2 * b**2) - 0.5
    return total


def sampled_logits(clap, x, h, tasks, noise, own=None):
    """(S, b, K) of unit images x (b, d) and texts h (K, d); own (b, K, d): each image's text features (AttriCLIP)."""
    u, z = inner(clap, x, h, tasks, noise)
    scale = clap.backbone.logit_scale
    logits = torch.zeros(len(z), len(x), len(h))
    for r in range(len(z)):
        for b in range(len(x)):
            for k in range(len(h)):
                weight = z[r][k] + u[k] + (own[b, k] if own is not None else 0)
                logits[r, b, k] = scale * (x[b] @ weight)
    return logits


def inner(clap, x, h, tasks, noise):
    """u, a list of K vectors, and z, a list of S lists of K vectors."""
    v = attention(clap.head.attention.layer, h, x, tasks) if clap.head.attention is not None else 0 * h
    u = [h[k] + v[k] for k in range(len(h))]
    z = []
    for r in range(len(noise) if clap.settings.variational else 1):
        z.append([])
        for k, task in enumerate(tasks.tolist()):
            mu, sigma = posterior(clap, u[k], task)
            z[r].append(mu if sigma is None else mu + sigma * noise[r, k])
    return u, z


def losses(clap, x, h, tasks, noise, labels, prompts, concerned, own=None, prior_of=None):
    """CE, beta R and the weighted KL. prompts: for each class (P, d); concerned: tasks; prior_of(k, task, u) -> (mu, sigma)."""
    logits = sampled_logits(clap, x, h, tasks, noise, own)
    u, z = inner(clap, x, h, tasks, noise)
    ce = [-logits[r, b].log_softmax(dim=0)[labels[b]] for r in range(len(z)) for b in range(len(x))]
    regularisation = kl = torch.zeros(())
    for task in concerned:
        own_classes = [k for k in range(len(h)) if tasks[k] == task]
        terms = []
        for k in own_classes:
            similarity = [
                sum(e @ z[r][j] for r in range(len(z)) for e in prompts[k]) / (len(z) * len(prompts[k])) for j in own_classes
            ]
            terms.append(-torch.stack(similarity).log_softmax(dim=0)[own_classes.index(k)])
        regularisation = regularisation + sum(terms) / len(terms)
        if clap.settings.variational:
            priors = {k: prior_of(k, task) if prior_of else (None, None) for k in own_classes}
            kls = [divergence(*posterior(clap, u[k], task), *priors[k]) for k in own_classes]
            kl = kl + sum(kls) / len(kls)
    return sum(ce) / len(ce), clap.settings.regularisation * regularisation, clap.settings.prior_weight * kl
