"""A feature taken out of its own contexts: against a loop in float64 with PyTorch's own hooks."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis.prompts.own_contexts import without
from saelab.errors import UsageError
from tests.analysis.dictionaries import RESIDUAL, dictionary, transcoder

CONTEXTS = [[0, 5, 9, 17, 3, 40, 8], [0, 9, 9, 2], [0, 60, 61, 5, 70]]


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def double(tiny_model: Path):
    """The same model in float64, by Hugging Face alone."""
    from transformers import GPT2LMHeadModel

    loaded = GPT2LMHeadModel.from_pretrained(tiny_model, attn_implementation="eager")
    return loaded.double().eval()


def losses(double, ids: list[int], change) -> tuple[list[float], torch.Tensor]:
    """The loss of each next token, and what `change` was given: the stream behind block 0."""
    seen = []

    def hook(module, args, output):
        stream = output[0] if isinstance(output, tuple) else output
        seen.append(stream[0].clone())
        changed = change(stream[0].clone())[None]
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = double.transformer.h[0].register_forward_hook(hook)
    with torch.no_grad():
        logits = double(input_ids=torch.tensor([ids])).logits[0]
    handle.remove()
    chances = logits.log_softmax(-1)
    return [-float(chances[at, ids[at + 1]]) for at in range(len(ids) - 1)], seen[0]


def firing_feature(sae, double) -> int:
    """One that fires in every context behind position 0, by a dense product."""
    counts = torch.zeros(sae.n_features)
    for ids in CONTEXTS:
        _, stream = losses(double, ids, lambda stream: stream)
        code = sae.encode(stream.float()).to_dense().detach()
        counts += (code[1:] != 0).any(0)
    assert counts.max() == len(CONTEXTS)
    return int(counts.argmax())


def test_the_change_is_that_of_a_loop_in_float64(model, double):
    sae = dictionary(RESIDUAL, k=12)
    feature = firing_feature(sae, double)
    measured = without(model, sae, feature, CONTEXTS)
    total, n_fired = 0.0, 0
    for row, ids in enumerate(CONTEXTS):
        clean, stream = losses(double, ids, lambda stream: stream)
        value = sae.encode(stream.float()).to_dense().detach()[:, feature].double()
        value[0] = 0

        def gone(stream, value=value):
            return stream - value[:, None] * sae.W_dec[feature].detach().double()

        lost, _ = losses(double, ids, gone)
        changes = [after - before for after, before in zip(lost, clean, strict=True)]
        assert measured.change[row, : len(changes)].tolist() == pytest.approx(changes, abs=2e-5)
        assert not measured.change[row, len(changes) :].any()
        fired = (value[:-1] != 0).tolist()
        total += sum(change for change, fires in zip(changes, fired, strict=True) if fires)
        n_fired += sum(fired)
    assert n_fired >= 3
    assert measured.firing.value == pytest.approx(total / n_fired, abs=2e-5)
    assert measured.firing.low is not None and measured.firing.null is not None
    assert abs(measured.change).max() > 1e-3, "a feature that does nothing would pass"


def test_a_context_alone_is_as_it_is_among_others(model):
    sae = dictionary(RESIDUAL, k=12)
    together = without(model, sae, 3, CONTEXTS)
    for row, ids in enumerate(CONTEXTS):
        alone = without(model, sae, 3, [ids]).change[0]
        torch.testing.assert_close(together.change[row, : len(alone)], alone, atol=1e-5, rtol=0)


def test_a_transcoder_s_feature_is_taken_out_of_what_it_explains(model):
    sae = transcoder(0, k=12)
    values = [float(without(model, sae, n, CONTEXTS).value.abs().sum()) for n in range(8)]
    feature = max(range(8), key=values.__getitem__)
    measured = without(model, sae, feature, CONTEXTS)
    assert measured.change.abs().max() > 1e-4 and measured.random.abs().max() > 1e-4


def test_no_contexts_are_told(model):
    with pytest.raises(UsageError, match="feature 3 has no contexts"):
        without(model, dictionary(RESIDUAL), 3, [])
