"""What an evaluation holds at once stays within its budget, whatever the vocabulary."""

import pytest
import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saelab import SAE, models
from saelab.activations import Contexts
from saelab.evaluation import measurement
from saelab.evaluation.downstream import Splice, predicting, spliced
from saelab.evaluation.measurement import Measurement
from saelab.evaluation.references import coded
from saelab.models import heads, losses, running
from saelab.sparsify import Choice

HOOK = "blocks.0.hook_resid_post"
V, D, C, T = 6000, 16, 8, 32
SHAPE = {
    "vocab_size": V, "hidden_size": D, "intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": T,
}  # fmt: skip
TOKENS = torch.randint(1, V, (C, T), generator=torch.Generator().manual_seed(0))
COUNTED = torch.ones(C, T, dtype=torch.bool)


class Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that anything made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor):
                size = each.untyped_storage().nbytes() // each.element_size()
                self.elements = max(self.elements, size)
        return made


@pytest.fixture(params=["Llama", "Cohere"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> models.Model:
    """One that runs plainly and one behind a bridge, whose head scales its logits."""
    monkeypatch.setattr(losses, "PIECE", 0)
    monkeypatch.setattr(losses, "ROWS", 4)
    torch.manual_seed(0)
    config = getattr(transformers, f"{request.param}Config")(**SHAPE)
    return models.load(transformers.AutoModelForCausalLM.from_config(config).eval())


def test_a_splice_never_holds_the_logits_of_a_context(model):
    with torch.no_grad(), Largest() as largest:
        splice = Splice(model, TOKENS, HOOK)
        replaced = {"zero": torch.zeros_like(splice.acts[HOOK]), "same": splice.acts[HOOK]}
        compared = spliced(splice, replaced, COUNTED)
    assert largest.elements <= max(4, D) * V < T * V  # a piece, or the unembedding itself
    clean = torch.cat([running.logits(model, TOKENS[:1]), running.logits(model, TOKENS[1:])])
    loss_P = losses.next_token_loss(clean, TOKENS).flatten()
    torch.testing.assert_close(compared["clean"].loss, loss_P, rtol=1e-5, atol=1e-5)
    assert compared["same"].kl.abs().max() < 1e-6 < compared["zero"].kl.mean()


def test_logits_held_whole_are_caught(model):
    with torch.no_grad(), Largest() as largest:
        clean = running.logits(model, TOKENS)
        losses.compare(None, {"clean": clean}, TOKENS, predicting(COUNTED))
    assert largest.elements >= C * T * V


def test_where_the_head_is_not_known_so_many_contexts_run_as_have_logits_within_the_budget(
    model, monkeypatch
):
    monkeypatch.setattr(heads, "head", lambda model: None)
    assert running.contexts_per_pass(model, T, logits=True) == 16
    monkeypatch.setattr(running, "LOGITS", 2 * T * V)
    sae = SAE(D, 32, Choice(2))
    measured = Measurement(model, (HOOK, HOOK), None, {"sae": sae}, {}, sae)
    assert measured.at_once(T) == 2


def test_rows_that_are_put_in_place_stay_within_the_budget(model, monkeypatch):
    known = dict.fromkeys(("zero", "mean"), coded(SAE(D, 32, Choice(1))))
    sae = SAE(D, 32, Choice(2))
    measured = Measurement(model, (HOOK, HOOK), None, {"sae": sae}, known, sae)
    assert measured.at_once(T) == 16
    monkeypatch.setattr(measurement, "FLOATS", 3 * 2 * 5 * T * D)
    assert measured.at_once(T) == 3
    owners = torch.zeros(C, T, dtype=torch.int64)
    with torch.no_grad():
        measured.add(Contexts(TOKENS[:3], torch.zeros(3, T, D), owners[:3], COUNTED[:3]))
    assert measured.sums["sae"].table()["tokens"].sum() == 3 * T
