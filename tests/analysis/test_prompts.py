"""A prompt taken apart: values by hand, effects against loops in float64, sums that add up."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from saelab import models
from saelab.analysis import prompts
from saelab.analysis.dark_matter.linear import fit
from saelab.analysis.prompts.comparing import differing
from saelab.analysis.prompts.usual import of_cache
from saelab.errors import UsageError
from saelab.models import running
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary, transcoder

TEXT = "alpha beta gamma"
DICTIONARIES = [dictionary(RESIDUAL), dictionary(Z), transcoder(0), transcoder(1)]
NAMES = ["residual", "heads", "transcoder 0", "transcoder 1"]


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def double(tiny_model: Path):
    """The same model in float64, by Hugging Face alone."""
    from transformers import GPT2LMHeadModel

    loaded = GPT2LMHeadModel.from_pretrained(tiny_model, attn_implementation="eager")
    return loaded.double().eval()


@pytest.fixture(scope="module")
def skipped():
    """A transcoder with a skip, and an SAE that normalises each token."""
    with_skip, normalising = transcoder(0, seed=3), dictionary(RESIDUAL, seed=4)
    draw = torch.Generator().manual_seed(1)
    with_skip.W_skip = torch.nn.Parameter(0.1 * torch.randn(32, 32, generator=draw))
    normalising.token_norm = "layer_norm"
    return with_skip, normalising


def test_a_text_is_tokens_that_read_as_it_does(model):
    prompt = prompts.prompt(model, TEXT)
    assert prompt.tokens[0] == 0 and prompt.first == 1
    assert "".join(prompt.texts[1:]) == TEXT


def test_special_tokens_that_a_text_spells_out_are_text(model):
    text = "a<|endoftext|>b"
    as_text, parsed = (prompts.prompt(model, text, parse_special=p) for p in (False, True))
    assert 0 not in as_text.tokens[1:] and len(as_text.tokens) == 1 + len(text)
    assert parsed.tokens.tolist()[2] == 0 and len(parsed.tokens) == 4  # the known-bad twin
    assert prompts.next_token(model, "a", "b") == as_text.tokens[-1]
    with pytest.raises(UsageError, match="cannot be the next token"):
        prompts.next_token(model, "a", "<|endoftext|>")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        ("x" * 40, r"the text has 40 tokens, the model's context has room for 31: leave out 9"),
    ],
)
def test_texts_that_do_not_fit_are_refused(model, text: str, message: str):
    with pytest.raises(UsageError, match=message):
        prompts.prompt(model, text)


@pytest.mark.parametrize("sae", DICTIONARIES, ids=NAMES)
def test_the_parts_add_up_and_position_0_is_error(model, sae):
    read = prompts.read(model, sae, prompts.prompt(model, TEXT))
    decoded = read.code.with_values(read.written).to_dense() @ sae.W_dec.detach()
    torch.testing.assert_close(decoded + read.base + read.error, read.explained)
    torch.testing.assert_close((decoded + read.base)[1:], sae(read.x)[1:].detach())
    assert torch.equal(read.error[0], read.explained[0]) and (read.code.tokens > 0).all()


def test_skips_and_normalised_tokens_are_taken_apart_too(model, skipped):
    for sae in skipped:
        read = prompts.read(model, sae, prompts.prompt(model, TEXT))
        decoded = read.code.with_values(read.written).to_dense() @ sae.W_dec.detach()
        torch.testing.assert_close((decoded + read.base)[1:], sae(read.x)[1:].detach())
        exact = prompts.exact(model, read, prompts.table(read), 5)
        assert (exact.estimated.sign() == exact.exact.sign()).sum() >= 4


def loss_of(double, hook_layer: int, tokens, added):
    """The summed loss in float64 with `added` [T, D] put on the stream behind a block, by a hook of
    PyTorch's own."""

    def add(module, args, output):
        stream = output[0] if isinstance(output, tuple) else output
        return (stream + added, *output[1:]) if isinstance(output, tuple) else stream + added

    handle = double.transformer.h[hook_layer].register_forward_hook(add)
    with torch.no_grad():
        logits = double(input_ids=tokens[None]).logits[0]
    handle.remove()
    return float(torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="sum"))


def test_exact_effects_are_those_of_a_loop_in_float64(model, double):
    sae, prompt = dictionary(RESIDUAL), prompts.prompt(model, TEXT)
    read = prompts.read(model, sae, prompt)
    rows = prompts.table(read)
    exact = prompts.exact(model, read, rows, 6)
    zero = torch.zeros(len(prompt.tokens), 32, dtype=torch.float64)
    clean = loss_of(double, 0, prompt.tokens, zero)
    assert read.loss is not None
    assert float(read.loss.sum()) == pytest.approx(clean, rel=1e-5)
    for number, lost in zip(exact.rows.tolist(), exact.exact.tolist(), strict=True):
        added = zero.clone()
        position, feature = int(rows.position[number]), int(rows.feature[number])
        added[position] = -float(rows.value[number]) * sae.W_dec[feature].detach().double()
        assert lost == pytest.approx(clean - loss_of(double, 0, prompt.tokens, added), abs=2e-4)


def test_estimated_effects_are_the_slope_of_the_loss(model, double):
    sae, prompt = dictionary(RESIDUAL), prompts.prompt(model, TEXT)
    rows = prompts.table(prompts.read(model, sae, prompt))
    zero = torch.zeros(len(prompt.tokens), 32, dtype=torch.float64)
    assert rows.effect is not None
    for number in prompts.strongest(rows, "effect", 4).tolist():
        added, small = zero.clone(), 1e-5
        direction = float(rows.value[number]) * sae.W_dec[int(rows.feature[number])].detach()
        added[int(rows.position[number])] = small * direction.double()
        up, down = (loss_of(double, 0, prompt.tokens, sign * added) for sign in (1, -1))
        assert float(rows.effect[number]) == pytest.approx((up - down) / (2 * small), rel=1e-3)


def test_orders_are_by_size_and_by_the_usual_one():
    rows = prompts.Table(
        torch.tensor([1, 1, 2]),
        torch.tensor([4, 7, 4]),
        torch.tensor([3.0, -5.0, 1.0]),
        torch.tensor([3.0, 0.5, torch.nan]),
        torch.tensor([0.1, -0.2, -0.9]),
    )
    assert prompts.strongest(rows, "value").tolist() == [1, 0, 2]
    assert prompts.strongest(rows, "usual").tolist() == [0, 1, 2]  # what is not known comes last
    assert prompts.strongest(rows, "effect", 1).tolist() == [2]
    assert prompts.on_token(rows, 1, "usual").tolist() == [0, 1]
    assert prompts.traces(rows, [4, 9], 4).tolist() == [[0, 3, 1, 0], [0, 0, 0, 0]]
    with pytest.raises(UsageError, match="no order 'size'; there are value, usual, effect"):
        prompts.strongest(rows, "size")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="saelab index RUN"):
        prompts.strongest(rows._replace(usual=None), "usual")


def test_the_usual_value_is_the_mean_where_a_feature_fires(model):
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    sae = dictionary(RESIDUAL)
    chunks = [SimpleNamespace(x=x[:13]), SimpleNamespace(x=x[13:])]
    cache = SimpleNamespace(counted=lambda hook, split, n: iter(chunks))
    with torch.no_grad():
        dense = sae.encode(x).to_dense()
    usual = of_cache(sae, cache)  # type: ignore[arg-type]
    for feature in range(sae.n_features):
        fired = [abs(float(value)) for value in dense[:, feature] if value != 0]
        mean = sum(fired) / len(fired) if fired else float("nan")
        assert float(usual.mean[feature]) == pytest.approx(mean, rel=1e-5, nan_ok=True)
        assert float(usual.density[feature]) == pytest.approx(len(fired) / 40)


@pytest.mark.parametrize("sae", DICTIONARIES, ids=NAMES)
def test_the_frozen_model_s_contributions_add_up_to_its_logit(model, sae):
    read = prompts.read(model, sae, prompts.prompt(model, TEXT))
    token, against = 40, 41
    parts = prompts.attribute(model, read, token, against, exact=True)
    with torch.no_grad():
        logits = running.logits(model, read.prompt.tokens[None])[0, -1]
    wanted = float(logits[token] - logits[against])
    assert parts.logit == pytest.approx(wanted, rel=1e-5)
    # `rest` is a run with nothing at the hook: it cannot make the sum right by itself.
    assert parts.total == pytest.approx(wanted, abs=1e-4 * float(logits.abs().max()))
    wrong = parts._replace(error=parts.error * 0)  # the known-bad twin: no error node
    assert abs(wrong.total - wanted) > 0.01


def test_first_order_contributions_are_the_logit_s_slope_and_say_what_is_left(model, double):
    sae, prompt = dictionary(RESIDUAL), prompts.prompt(model, TEXT)
    read = prompts.read(model, sae, prompt)
    parts = prompts.attribute(model, read, 40, position=5)
    assert parts.total == pytest.approx(parts.logit, abs=1e-5 * abs(parts.logit) + 1e-6)
    late = read.code.tokens > 5
    assert not parts.features[late].any() and not parts.error[6:].any()  # nothing from the future

    def logit(added):
        handle = double.transformer.h[0].register_forward_hook(
            lambda module, args, out: (
                (out[0] + added, *out[1:]) if isinstance(out, tuple) else out + added
            )
        )
        with torch.no_grad():
            value = float(double(input_ids=prompt.tokens[None]).logits[0, 5, 40])
        handle.remove()
        return value

    for number in parts.features.abs().argsort(descending=True)[:3].tolist():
        added = torch.zeros(len(prompt.tokens), 32, dtype=torch.float64)
        row = sae.W_dec[read.code.features[number]].detach().double()
        added[read.code.tokens[number]] = 1e-5 * float(read.written[number]) * row
        slope = (logit(added) - logit(-added)) / 2e-5
        assert float(parts.features[number]) == pytest.approx(slope, rel=1e-3)


def test_tokens_and_positions_that_there_are_not_are_refused(model):
    read = prompts.read(model, dictionary(RESIDUAL), prompts.prompt(model, "ab"))
    with pytest.raises(UsageError, match="no token 257: the model has tokens 0 to 256"):
        prompts.attribute(model, read, 257)
    with pytest.raises(UsageError, match="no position 3: the prompt has positions 0 to 2"):
        prompts.attribute(model, read, 1, position=3)


def test_the_error_splits_into_what_a_map_predicts_and_the_rest(model):
    sae, prompt = dictionary(RESIDUAL), prompts.prompt(model, TEXT)
    read = prompts.read(model, sae, prompt)
    x = torch.randn(200, 32, generator=torch.Generator().manual_seed(0))
    linear = fit(x, x - sae(x).detach())
    parts = prompts.error_split(read, linear)
    error = (read.x - sae(read.x).detach())[3]
    predicted = read.x[3].double() @ linear.weight + linear.bias
    assert float(parts.error[3]) == pytest.approx(float(error.norm()), rel=1e-4)
    assert float(parts.linear[3]) == pytest.approx(float(predicted.norm()), rel=1e-4)
    rest = float((error.double() - predicted).norm())
    assert float(parts.nonlinear[3]) == pytest.approx(rest, rel=1e-4)
    assert parts.error[0] == 0 and parts.nonlinear[0] == 0
    with pytest.raises(UsageError, match="the map is of width 16"):
        prompts.error_split(read, fit(x[:, :16], x[:, :16]))


def test_two_prompts_differ_in_the_features_of_what_differs():
    one = prompts.Table(
        torch.tensor([1, 2, 2]), torch.tensor([5, 5, 8]), torch.tensor([1.0, 4.0, 2.0]), None, None
    )
    two = prompts.Table(
        torch.tensor([1, 3]), torch.tensor([8, 9]), torch.tensor([2.0, -6.0]), None, None
    )
    both = prompts.compare(one, two)
    assert both.feature.tolist() == [9, 5, 8]
    assert both.first.tolist() == [0, 4, 2] and both.second.tolist() == [-6, 0, 2]
    assert both.at_first.tolist() == [-1, 2, 2] and both.at_second.tolist() == [3, -1, 1]
    assert differing([0, 1, 2], [0, 1, 3]) == 2 and differing([0, 1], [0, 1, 2]) == 2
    with pytest.raises(UsageError, match="the same tokens"):
        differing([0, 1], [0, 1])


def test_an_sae_of_another_model_is_refused(model):
    with pytest.raises(UsageError, match="of width 16, this model has 32 there"):
        prompts.read(model, dictionary(RESIDUAL, width=16), prompts.prompt(model, "ab"))
