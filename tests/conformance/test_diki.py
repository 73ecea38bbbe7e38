"""DIKI against its authors' code: stored banks and orders in; Gaussians, steps, best epoch and both forms of test out."""

import pytest
import torch

from methods.residual_attention.diki import DIKI
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.shifted_images import Groups, Record, StoredOrders, common_settings, gaussian, scored


@PRECISIONS
@pytest.mark.vectors("diki", "vectors*")
def test_diki(vectors, tiny, tmp_path, monkeypatch, precision):
    assert not vectors.params["drop_last"]
    groups = Groups(vectors, tiny, tmp_path, precision)
    settings = DIKI.Settings(**common_settings(vectors.params))
    method = DIKI(settings, groups.world.backbone, groups.world.scenario, StoredOrders(vectors))
    actual = {}
    for index in range(groups.n_tasks):
        task, division = groups.task(index)
        method.grow(task)
        bank = method.banks[index]
        for tower, additions in (("image", bank.image), ("text", bank.text)):
            stored = torch.from_numpy(vectors[f"{tower}_prompts_init"][:, index])
            assert not stored[:, 1].any() and stored.shape == additions.rows.shape  # values start at 0
            additions.rows.data[:, 0] = stored[:, 0].to(additions.rows)
        with monkeypatch.context() as patch:
            patch.setattr(method, "divide", lambda task, division=division: division)
            record = Record(method, task, patch)
            method.learn(task)
        found = record.arrays() | gaussian(method, index)
        for tower in ("image", "text"):
            rows = f"{tower}.rows"
            found |= {
                f"step0_grad_{tower}": record.first_gradients[rows],
                f"{tower}_prompts_step2": record.after_steps[1][rows],
                f"{tower}_prompts_last_epoch": record.after_epochs[-1][rows],
                f"{tower}_prompts": bank.state_dict()[rows],
            }
        actual |= {f"task{index}/{name}": values for name, values in found.items()}
        actual |= {f"after{index}/{name}": values for name, values in scored(method, groups).items()}
    vectors.check(actual, dtype=precision)
