import torch
import torch.nn.functional as F

from bench.system.randomness import Draws
from methods.bounds.joint_prompts import JointPrompts
from methods.cgil.alignment import HAND_MADE, AlignmentSettings, ClassPrompts
from methods.cgil.cgil import CGIL

DRAWS = Draws("test", "joint-prompts", 0)
QUICK = AlignmentSettings(alignment_lr=1e-3, alignment_epochs=8, alignment_batch=16)


def build(tiny):
    stream = tiny.stream(tiny.class_names, [4, 4], tiny.labels, templates=[HAND_MADE])
    return JointPrompts(QUICK, tiny.backbone, stream.scenario, DRAWS), stream


def test_it_learns_all_tasks_in_one_call(tiny):
    method, stream = build(tiny)
    train = stream.joined().train
    before = F.cross_entropy(method.logits(train.features(), range(8)), train.labels)
    method.learn(stream.joined())
    after = F.cross_entropy(method.logits(train.features(), range(8)), train.labels)
    assert method.joint and after < 0.5 * before


def test_it_is_cgil_s_alignment_on_real_embeddings(tiny):
    method, stream = build(tiny)
    method.learn(stream.joined())
    train = stream.joined().train
    prompts = ClassPrompts(tiny.backbone, stream.scenario, QUICK, DRAWS)
    prompts.align(8, lambda epoch: train.features(), train.labels, (1,), check=lambda loss, what: None)
    assert torch.equal(method.class_vectors, prompts.keys(8))


def test_recipes_are_cgil_s_without_the_generators(tiny):
    for protocol in ("cub200-10x20", "isic-3x2", "cifar100-10x10"):
        ours, theirs = JointPrompts.settings_for(protocol), CGIL.settings_for(protocol)
        assert (ours.alignment_lr, ours.alignment_epochs) == (theirs.alignment_lr, theirs.alignment_epochs)


def test_resumed_object_gives_the_same_logits(tiny):
    method, stream = build(tiny)
    method.learn(stream.joined())
    resumed, _ = build(tiny)
    resumed.load_state_dict(method.state_dict())
    x = stream.tasks[0].test.features()
    assert torch.equal(method.logits(x, [5, 0]), resumed.logits(x, [5, 0]))
