"""AttriCLIP: the prompt bank against its formulas, and what happens at a task's boundary."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.clip.text_tower import encode_embedded
from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.text_prompts.attriclip import AttriCLIP, AttriCLIPSettings
from methods.text_prompts.prompt_bank import PromptBank

QUICK = AttriCLIPSettings(bank_size=5, prompt_length=2, chosen=2, epochs=2, batch_size=4, learning_rate=0.05)


def build(stream, backbone, settings=QUICK, seed=0, **budget) -> AttriCLIP:
    return AttriCLIP(settings, backbone, replace(stream.scenario, **budget), Draws("test", "attriclip", seed))


def learned(stream, backbone, settings=QUICK) -> AttriCLIP:
    method = build(stream, backbone, settings)
    for task in stream.tasks:
        method.learn(task)
    return method


def sentence(backbone, text: str, places: torch.Tensor) -> torch.Tensor:
    """The text feature of a sentence whose tokens from the second on are replaced by vectors (n, w)."""
    tokens = backbone.tokenize([text])  # (1, 77), not cut
    embeddings = backbone.clip.token_embedding(tokens)[0].clone()
    embeddings[1 : 1 + len(places)] = places
    return encode_embedded(backbone.clip, embeddings[None], tokens.argmax(dim=-1))[0]


def text_feature(backbone, bank: PromptBank, choice, name: str) -> torch.Tensor:
    """w_c, one prompt at a time."""
    context = torch.cat([bank.prompts[i] for i in choice])
    return sentence(backbone, " ".join(["x"] * len(context)) + f" {name}.", context)


def new_bank(backbone, n=5, length=2, chosen=2, **options) -> PromptBank:
    return PromptBank.drawn(
        Draws("test", "bank", 0), n, length, backbone.embedding_width, backbone.text_width, chosen=chosen, **options
    )


def test_an_image_takes_the_nearest_keys_at_their_raw_length(small_backbone):
    bank = new_bank(small_backbone)
    with torch.no_grad():
        bank.keys[3] *= 50  # far longer than the others: the angle alone would not choose it every time
    features = F.normalize(torch.randn(20, small_backbone.embedding_width, generator=torch.Generator().manual_seed(1)), dim=-1)
    choice = bank.choose(features)
    for f, chosen in zip(features, choice.tolist()):
        scores = [float(f @ key) for key in bank.keys.detach()]
        assert chosen == sorted(range(5), key=lambda i: -scores[i])[:2]
    assert {3 in row[:1] for row in choice.tolist()} == {True, False}


@pytest.mark.parametrize("chunk", [512, 3])
def test_every_image_has_its_own_text_features(small_backbone, chunk):
    bank = new_bank(small_backbone, chunk=chunk)
    names, choice = ["cat", "dark gray dog"], torch.tensor([[4, 0], [0, 4], [1, 2], [4, 0]])
    found = bank.text_features(bank.prompts_for(small_backbone, names), choice)
    for row in range(4):
        for column, name in enumerate(names):
            expected = text_feature(small_backbone, bank, choice[row].tolist(), name)
            torch.testing.assert_close(found[row, column], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=1e-4)  # the order of the prompts matters


def test_encoding_in_parts_gives_the_same_gradients(small_backbone):
    choice, gradients = torch.tensor([[4, 0], [0, 4], [1, 2]]), []
    for chunk in (512, 2):
        bank = new_bank(small_backbone, chunk=chunk)
        bank.text_features(bank.prompts_for(small_backbone, ["cat", "dog", "red fox"]), choice).square().sum().backward()
        gradients.append(bank.prompts.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4 * float(gradients[0].abs().max()))


def test_the_losses_of_the_bank(small_backbone):
    bank = new_bank(small_backbone)
    features = F.normalize(torch.randn(3, small_backbone.embedding_width, generator=torch.Generator().manual_seed(1)), dim=-1)
    choice = torch.tensor([[0, 1], [1, 4], [2, 0]])
    cosines = [float(F.cosine_similarity(f, bank.keys[i].detach(), dim=0)) for f, row in zip(features, choice) for i in row]
    assert float(bank.key_loss(features, choice)) == pytest.approx(1 - sum(cosines) / 6, abs=1e-6)

    filler = small_backbone.clip.token_embedding(small_backbone.tokenize(["x"]))[0, 1]
    texts = [sentence(small_backbone, "x x x x.", torch.cat([prompt, filler.expand(2, -1)])) for prompt in bank.prompts]
    pairs = [abs(float(F.cosine_similarity(texts[i], texts[j], dim=0))) for i in range(5) for j in range(5) if i != j]
    assert float(bank.likeness(small_backbone)) == pytest.approx(sum(pairs) / 20, abs=1e-5)


def test_a_bank_of_one_prompt_is_like_no_other(small_backbone):
    assert float(new_bank(small_backbone, n=1, chosen=1).likeness(small_backbone)) == 0.0


def test_the_loss_is_the_weighted_sum_of_three(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, replace(QUICK, key_weight=0.2, prompt_weight=0.6))
    images, columns = stream.tasks[1].train.features()[:4], torch.tensor([0, 1, 0, 1])
    features = F.normalize(images, dim=-1)
    choice = method.bank.choose(features)
    names = stream.scenario.class_names[2:]

    def logit(image: torch.Tensor, row: torch.Tensor, name: str) -> torch.Tensor:
        return F.cosine_similarity(image, text_feature(small_backbone, method.bank, row.tolist(), name), dim=0)

    logits = torch.stack([torch.stack([logit(f, row, name) for name in names]) for f, row in zip(images, choice)])
    expected = F.cross_entropy(small_backbone.logit_scale * logits, columns)
    expected = expected + 0.2 * method.bank.key_loss(features, choice) + 0.6 * method.bank.likeness(small_backbone)
    found = method.loss(method.text_of(torch.tensor([2, 3])), images, columns)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_scores_are_cosines_with_the_text_of_the_own_choice(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone)
    method.learn(stream.tasks[0])
    for f in stream.tasks[1].train.features()[:3]:
        choice = method.bank.choose(F.normalize(f[None], dim=-1))[0].tolist()
        texts = [text_feature(small_backbone, method.bank, choice, stream.scenario.class_names[c]) for c in (3, 0)]
        expected = [small_backbone.logit_scale * float(F.cosine_similarity(f, text, dim=0)) for text in texts]
        assert method.logits(f[None], [3, 0])[0].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_before_learning_it_is_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream()
    features = stream.tasks[0].train.features()
    text = small_backbone.classifier(stream.scenario.prompts_of([2, 1]))
    expected = small_backbone.logit_scale * F.normalize(features, dim=-1) @ text.T
    torch.testing.assert_close(build(stream, small_backbone).logits(features, [2, 1]), expected)


def test_only_chosen_keys_move(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, replace(QUICK, bank_size=20))
    before = method.bank.keys.detach().clone()
    chosen = set()
    choose = method.bank.choose
    method.bank.choose = lambda features: chosen.update((choice := choose(features)).flatten().tolist()) or choice
    method.learn(stream.tasks[0])
    moved = {i for i in range(20) if not torch.equal(method.bank.keys[i], before[i])}
    assert moved == chosen and len(moved) < 20


def test_the_bank_goes_on_and_no_image_is_kept(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, replace(QUICK, epochs=0), exemplars_per_class=3)
    method.learn(stream.tasks[0])
    before = method.bank.prompts.detach().clone()
    method.learn(stream.tasks[1])
    assert torch.equal(method.bank.prompts, before)
    assert method.exemplar_bytes() == 0 and len(method.memory) == 0


def test_as_released_every_task_starts_from_the_pretrained_text_tower(small_backbone, make_stream):
    stream = make_stream()
    tuned = replace(QUICK, text_tower="trained_per_task")
    method = build(stream, small_backbone, tuned)
    pretrained = {name: value for name, value in small_backbone.clip.state_dict().items() if not name.startswith("visual.")}
    method.learn(stream.tasks[0])
    changed = {
        name.split(".")[0] for name, value in method.tower.state_dict().items() if not torch.equal(value, pretrained[name])
    }
    assert changed == {"transformer", "positional_embedding", "ln_final", "text_projection", "logit_scale"}
    method.settings = replace(tuned, epochs=0)
    method.learn(stream.tasks[1])
    assert all(torch.equal(value, pretrained[name]) for name, value in method.tower.state_dict().items())


@pytest.mark.parametrize("text_tower", ["frozen", "trained_per_task"])
def test_a_resumed_run_scores_with_its_own_bank(small_backbone, make_stream, text_tower):
    stream = make_stream(sizes=(2, 2, 2))
    settings = replace(QUICK, text_tower=text_tower)
    whole, features = build(stream, small_backbone, settings), stream.tasks[1].train.features()
    whole.learn(stream.tasks[0])
    resumed = build(stream, small_backbone, settings)
    resumed.learn(stream.tasks[2])  # something else, whose text features must not be scored with
    resumed.logits(features, range(6))
    resumed.load_state_dict(whole.state_dict())
    for task in stream.tasks[1:]:
        assert torch.equal(resumed.logits(features, range(6)), whole.logits(features, range(6)))
        whole.learn(task)
        resumed.learn(task)
    assert torch.equal(resumed.logits(features, range(6)), whole.logits(features, range(6)))


def test_learning_lowers_the_loss(small_backbone, make_stream):
    stream = make_stream(sizes=(4,), per_class=8)
    method = build(stream, small_backbone, replace(QUICK, epochs=0))
    features, labels = stream.tasks[0].train.features(), stream.tasks[0].train.labels
    method.learn(stream.tasks[0])
    before = float(F.cross_entropy(method.logits(features, range(4)), labels))
    trained = build(stream, small_backbone, replace(QUICK, epochs=20, optimiser="adamw", mirrored_view=False))
    trained.learn(stream.tasks[0])
    assert float(F.cross_entropy(trained.logits(features, range(4)), labels)) < 0.7 * before


def test_learning_and_scoring_use_cached_features_only(small_backbone, make_stream):
    stream = make_stream()
    for task in stream.tasks:
        for view in ("plain", "mirrored"):
            task.train.features(view)
    passes = small_backbone.image_passes
    method = learned(stream, small_backbone, replace(QUICK, text_tower="trained_per_task"))
    method.logits(stream.tasks[0].train.features(), range(4))
    assert small_backbone.image_passes == passes


@pytest.mark.parametrize(
    "options", [{"chosen": 0}, {"chosen": 11}, {"prompt_length": 0}, {"prompts_at_once": 0}, {"balanced_epochs": 1}]
)
def test_settings_that_contradict_each_other_are_refused(options):
    with pytest.raises(BenchError, match=next(iter(options))):
        AttriCLIPSettings(**options)
