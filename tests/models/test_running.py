"""Running a model: the plain Hugging Face way equals the bridge, whatever the model comes from."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from saelab import models
from saelab.errors import UsageError
from saelab.features.directions import output_map
from saelab.models import losses, running, splicing
from saelab.models.families import FAMILIES
from saelab.models.heads import head as head_of
from saelab.models.splicing import Splice

TOKENS = torch.randint(1, 97, (2, 11), generator=torch.Generator().manual_seed(0))
SHAPE = {"vocab_size": 97, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
         "num_attention_heads": 4, "max_position_embeddings": 16}  # fmt: skip
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
GROUPED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 6}
CONFIGS = {
    "gpt2": transformers.GPT2Config(vocab_size=97, n_embd=24, n_layer=3, n_head=4, n_positions=16),
    "llama": transformers.LlamaConfig(**GROUPED),
    "neox": transformers.GPTNeoXConfig(**SHAPE),
    "gemma-2": transformers.Gemma2Config(**GROUPED, sliding_window=4),
    "gemma-3": transformers.Gemma3TextConfig(**GROUPED, sliding_window=4),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> models.Model:
    """A random model with weights large enough for attention to choose."""
    torch.manual_seed(0)
    plain = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()
    for parameter in plain.requires_grad_(False).parameters():
        parameter.data *= 2
    return models.load(plain)


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, in units of the root mean square."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.square().mean().sqrt())


def points(model: models.Model) -> list[str]:
    """The canonical points of block 1 and outside the blocks."""
    canonical = dict.fromkeys(model.names.values())
    return [name for name in canonical if name.startswith("blocks.1.") or "blocks" not in name]


def pushed(acts: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(acts.shape, generator=torch.Generator().manual_seed(1))
    return acts + acts.std() * noise


def test_reading_and_splicing_equal_the_bridge(model):
    names = points(model)
    acts, ways = {}, ("cheapest", "bridge")
    for way in ways:
        with running.engine(way):
            acts[way] = running.read(model, TOKENS, names)
    for name in names:
        assert off(acts["cheapest"][name], acts["bridge"][name]) < 1e-5, name
        spliced = []
        for way in ways:
            with running.engine(way), torch.no_grad():
                spliced.append(running.logits(model, TOKENS, {name: pushed(acts["bridge"][name])}))
        assert off(*spliced) < 1e-5, name


def test_gradients_equal_the_bridge(model):
    for name in ("blocks.1.hook_resid_post", "blocks.1.attn.hook_z", "blocks.0.hook_mlp_out"):
        ours = running.gradients(model, TOKENS, [name])
        with running.engine("bridge"):
            theirs = running.gradients(model, TOKENS, [name])
        assert off(ours[name], theirs[name]) < 1e-5
        assert off(ours[f"{name}.grad"], theirs[f"{name}.grad"]) < 1e-5


@pytest.mark.parametrize("wrong", ["another layer", "behind the norm"])
def test_a_row_that_names_the_wrong_module_is_caught(model, monkeypatch, wrong: str):
    name = "blocks.1.ln2.hook_in"
    right = running.read(model, TOKENS, [name])[name]
    if wrong == "another layer":
        monkeypatch.setitem(model.names, name, "blocks.0.ln2.hook_in")
    else:
        monkeypatch.setitem(model.names, name, "blocks.1.ln2.hook_out")
    assert off(running.read(model, TOKENS, [name])[name], right) > 1e-3


def test_the_last_position_alone_is_the_last_of_all(model):
    for way in ("cheapest", "bridge"):
        with running.engine(way), torch.no_grad():
            every = running.logits(model, TOKENS)
            assert off(running.logits(model, TOKENS, last=True), every[:, -1]) < 1e-5


def test_names_and_aliases_are_the_bridge_s(model):
    theirs = models.hook_points(model)
    for name, canonical in model.names.items():
        assert theirs[name] == canonical, name
    alias = "blocks.1.hook_resid_post"
    assert models.aliases(model, alias) == ["blocks.1.hook_out"]


def test_the_configuration_says_what_the_bridge_s_says(model):
    ours, theirs = model._facts, model.bridge.cfg
    for field in ("n_layers", "n_heads", "d_model", "d_head", "n_ctx", "d_vocab"):
        assert getattr(ours, field) == getattr(theirs, field), field
    for field in ("uses_rms_norm", "rmsnorm_uses_offset"):
        assert getattr(ours, field) == bool(getattr(theirs, field, False)), field
    assert torch.equal(output_map(model), output_map(model.bridge))


def test_edits_act_in_their_order_and_before_reading(model):
    name = "blocks.0.hook_resid_post"
    edits = [(name, torch.zeros_like), ("blocks.0.hook_out", lambda acts: acts + 3)]
    for way in ("cheapest", "bridge"):
        with running.engine(way):
            acts = running.run(model, TOKENS, edits, read=[name]).acts[name]
        assert acts.unique().tolist() == [3]


def test_what_is_held_in_memory_is_taken_as_it_is(model):
    name = "blocks.1.hook_resid_post"
    ours = running.read(model, TOKENS, [name])[name]
    held = models.load(model.bridge, tokenizer="none")
    assert held.plain is None and off(running.read(held, TOKENS, [name])[name], ours) < 1e-5
    assert off(running.read(model.bridge, TOKENS, [name])[name], ours) < 1e-5
    assert models.load(model) is model
    with pytest.raises(UsageError, match="a Linear is no language model"):
        models.load(torch.nn.Linear(1, 1).eval())
    with pytest.raises(UsageError, match=r"call its eval\(\) first"):
        models.load(transformers.AutoModelForCausalLM.from_config(CONFIGS["gpt2"]).train())


def test_a_bridge_over_a_plain_model_shares_its_weights_and_leaves_it_alone(model):
    before = model.plain(TOKENS).logits
    _ = model.bridge
    assert torch.equal(model.plain(TOKENS).logits, before)
    shared = {parameter.data_ptr() for parameter in model.plain.parameters()}
    assert {p.data_ptr() for p in model.bridge.original_model.parameters()} & shared


def test_modules_are_read_without_importing_transformer_lens(tiny_model: Path):
    code = (
        "import sys, torch; from saelab import models; from saelab.models import running\n"
        f"model = models.load({str(tiny_model)!r})\n"
        "running.read(model, torch.zeros(1, 3, dtype=torch.int64), ['blocks.0.hook_resid_post'])\n"
        "assert models.aliases(model, 'blocks.0.attn.hook_z')\n"
        "print('transformer_lens' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "False", ran.stderr


SPLICED = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post",
           "blocks.1.hook_attn_out", "blocks.2.mlp.hook_post", "blocks.0.attn.hook_z"]  # fmt: skip


def test_a_splice_runs_from_its_layer_on_and_equals_a_whole_run(model):
    blocks = model.plain.get_submodule(model.family.blocks)
    ran: list[int] = []
    for layer, block in enumerate(blocks):
        block.mlp.register_forward_pre_hook(lambda *_, layer=layer: ran.append(layer))
    everywhere = torch.ones(TOKENS.shape, dtype=torch.bool)
    everywhere[:, -1] = False
    for name in SPLICED:
        splice = Splice(model, TOKENS, name)
        replacement = pushed(splice.acts[name])
        ran.clear()
        endings = {"clean": splice.clean, "pushed": splice.ending(replacement)}
        assert ran == list(range(model.cfg.n_layers))[splicing.begins_at(model, name).layer :]
        for way in ("cheapest", "bridge"):
            with running.engine(way), torch.no_grad():
                given = replacement.view(running.read(model, TOKENS, [name])[name].shape)
                clean = running.logits(model, TOKENS).double().log_softmax(-1)
                after = running.logits(model, TOKENS, {name: given}).double().log_softmax(-1)
            compared = losses.compare(model, endings, TOKENS, everywhere)["pushed"]
            kl = (clean.exp() * (clean - after)).sum(-1)[:, :-1].flatten()
            torch.testing.assert_close(compared.kl.double(), kl, rtol=1e-4, atol=1e-5)
            loss = losses.next_token_loss(after, TOKENS).flatten()
            torch.testing.assert_close(compared.loss, loss, rtol=1e-5, atol=1e-5)
    assert torch.equal(Splice(model, TOKENS, SPLICED[0]).clean, splice.clean)


def test_a_splice_that_skips_a_layer_too_many_is_caught(model, monkeypatch):
    name = "blocks.0.hook_resid_post"
    splice = Splice(model, TOKENS, name)
    whole = splice.ending(splice.acts[name])
    assert off(whole, splice.clean) < 1e-5
    splice._start = splicing.Start(2, True)
    assert off(splice.ending(splice.acts[name]), splice.clean) > 1e-2


def test_a_bridge_alone_is_spliced_in_whole_runs(model):
    name, ours = "blocks.1.hook_resid_post", Splice(model, TOKENS, "blocks.1.hook_resid_post")
    theirs = Splice(model.bridge, TOKENS, name)
    assert theirs._start is None
    given = pushed(ours.acts[name])
    logits = [head_of(of)(run.ending(given)) for of, run in ((model, ours), (model.bridge, theirs))]
    assert off(*logits) < 1e-5


def test_losses_in_pieces_equal_log_softmax(monkeypatch):
    monkeypatch.setattr(losses, "rows_at_once", lambda vocabulary: 5)
    clean, other = torch.randn(2, 3, 11, 97, generator=torch.Generator().manual_seed(0))
    tokens = TOKENS[:1].expand(3, -1).contiguous()
    log_p, log_q = clean.double().log_softmax(-1), other.double().log_softmax(-1)
    torch.testing.assert_close(
        losses.kl(clean, other).double(), (log_p.exp() * (log_p - log_q)).sum(-1), **CLOSE
    )
    taken = -log_p[:, :-1].gather(2, tokens[:, 1:, None]).squeeze(2)
    torch.testing.assert_close(losses.next_token_loss(clean, tokens).double(), taken, **CLOSE)


def test_every_family_has_a_shape_that_is_tested():
    tested = ("GPT2LMHeadModel", "LlamaForCausalLM", "GPTNeoXForCausalLM", "Gemma2ForCausalLM")
    rows = [FAMILIES[name] for name in tested]
    assert all(any(family is row for row in rows) for family in FAMILIES.values())
