"""Cross-layer transcoders against plain products in float64: what they compute, their gradients,
their one budget over all layers, their files.

Shapes: B tokens, L layers, F features per layer, D width in, E width out.
"""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from saelab import SAE, CrossLayerTranscoder, formats
from saelab.errors import FailedRun, UsageError
from saelab.origin import Identity, Origin
from saelab.sparsify import Choice, Sparsify, Threshold

L, F, D, E, B = 3, 10, 6, 5, 40
TOKEN = Choice(3)


def made(form: Sparsify = TOKEN, d_out: int = E) -> CrossLayerTranscoder:
    clt = CrossLayerTranscoder(L, D, F, form, d_out=d_out, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in (clt.b_dec, *(layer.b_enc for layer in clt.layers)):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    hooks = ("+".join(f"blocks.{i}.{place}" for i in range(L)) for place in ("a", "b"))
    clt.origin = Origin(*hooks, model=Identity("m"), sparsify="topk", k=3)
    return clt


def inputs() -> Tensor:
    return torch.randn(B, L * D, generator=torch.Generator().manual_seed(3))


def truth(clt: CrossLayerTranscoder, x_BD: Tensor, backward: bool = False) -> Tensor:
    """y_hat by dense products: k of each layer. backward: the known-bad twin, whose features write
    to their own and all *earlier* outputs."""
    outputs = [clt.b_dec[j * E : (j + 1) * E].expand(B, E) for j in range(L)]
    for i, layer in enumerate(clt.layers):
        pre_BF = (x_BD[:, i * D : (i + 1) * D] @ layer.W_enc.T + layer.b_enc).relu()
        kept_BF = pre_BF * (pre_BF >= pre_BF.topk(3, dim=1).values[:, -1:])
        for number, rows_FE in enumerate(layer.W_dec.split(E, 1)):
            j = i - number if backward else i + number
            outputs[j] = outputs[j] + kept_BF @ rows_FE
    return torch.cat(outputs, 1)


def test_it_is_dense_products_and_so_are_its_gradients():
    clt, x_BD = made().double(), inputs().double().requires_grad_()
    weights_BE = torch.randn(B, L * E, dtype=torch.float64)
    wanted = [*clt.parameters(), x_BD]
    due = torch.autograd.grad((truth(clt, x_BD) * weights_BE).sum(), wanted)
    y_hat_BE, code = clt.reconstruct(x_BD)
    torch.testing.assert_close(y_hat_BE, truth(clt, x_BD), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(clt.decode(code), y_hat_BE, rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad((y_hat_BE * weights_BE).sum(), wanted)
    for gradient, expected in zip(mine, due, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-11)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(y_hat_BE, truth(clt, x_BD, backward=True))


def test_whose_decoders_write_to_their_own_layer_it_is_transcoders():
    clt, x_BD = made(), inputs()
    for layer in clt.layers:
        layer.W_dec.data[:, E:] = 0
    for i, layer in enumerate(clt.layers):
        held = {name: getattr(layer, name) for name in ("W_enc", "b_enc")}
        own = {"W_dec": layer.W_dec[:, :E].contiguous(), "b_dec": clt.b_dec[i * E : (i + 1) * E]}
        one = SAE.of({**held, **own}, Choice(3), transcoder=True)
        x_hat, code = one.reconstruct(x_BD[:, i * D : (i + 1) * D])
        mine_BE = clt(x_BD)[:, i * E : (i + 1) * E]
        torch.testing.assert_close(mine_BE, x_hat, rtol=1e-6, atol=1e-6)
        on = clt.encode(x_BD).features // F == i
        assert torch.equal(clt.encode(x_BD).values[on], code.values)


def test_a_decoder_that_writes_before_its_own_layer_is_refused():
    clt = made()
    held = [dict(layer.named_parameters()) for layer in clt.layers]
    with pytest.raises(UsageError, match="its own and all later ones"):
        CrossLayerTranscoder.of([held[0], held[0], held[2]], clt.b_dec, Choice(3))


def test_a_batch_budget_is_one_over_all_layers_and_so_is_its_level():
    clt, x_BD = made(Choice(2, "batch")), inputs()
    clt.layers[1].W_enc.data *= 3  # so that an equal share of each layer would be another choice
    with torch.no_grad():
        pre = [
            (x @ layer.W_enc.T + layer.b_enc).relu()
            for x, layer in zip(clt.inputs(x_BD), clt.layers, strict=True)
        ]
    dense_BF = torch.cat(pre, 1)
    least = dense_BF.flatten().topk(2 * L * B).values[-1]
    due_BF = torch.where(dense_BF >= least, dense_BF, 0)
    torch.testing.assert_close(clt.encode(x_BD).to_dense(), due_BF, rtol=1e-5, atol=1e-6)
    counts = [int((piece >= least).sum()) for piece in pre]
    assert counts[1] > 2 * max(counts[0], counts[2])
    with pytest.raises(UsageError, match="call calibrate"):
        clt.frozen()
    clt.calibrate([x_BD[:25], x_BD[25:]], B)
    torch.testing.assert_close(clt.frozen().encode(x_BD).to_dense(), due_BF, rtol=1e-5, atol=1e-6)


def test_it_is_what_it_was_after_saving(tmp_path: Path):
    clt, x_BD = made(), inputs()
    clt.save(tmp_path / "sae", probe=x_BD[:4])
    again = CrossLayerTranscoder.load(tmp_path)
    assert again.origin == clt.origin and again.sparsify == clt.sparsify
    assert torch.equal(again(x_BD), clt(x_BD))
    with pytest.raises(UsageError, match="is a cross-layer transcoder of 3 layers, and this takes"):
        SAE.load(tmp_path)


def test_circuit_tracers_folder_holds_the_same_weights(tmp_path: Path):
    clt, x_BD = made(Choice(2, "batch"), d_out=D), inputs()
    clt.calibrate([x_BD], B)
    formats.save(clt, tmp_path, "circuit_tracer_clt")
    again = CrossLayerTranscoder.load(tmp_path)
    assert again.origin.hooks == clt.origin.hooks and again.origin.model == clt.origin.model
    frozen = clt.frozen().state_dict()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in frozen.items())
    assert torch.equal(again(x_BD), clt.frozen()(x_BD))
    held = load_file(tmp_path / "W_dec_1.safetensors")
    assert held["W_dec_1"].shape == (F, L - 1, D)  # formats.md: target layer i first
    torch.testing.assert_close(held["W_dec_1"][:, 1], clt.layers[1].W_dec[:, D:], rtol=0, atol=0)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["feature_output_hook"] == "b"
    (tmp_path / "W_enc_1.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(FailedRun, match="has no W_enc_1"):
        CrossLayerTranscoder.load(tmp_path)


def test_what_circuit_tracers_folder_cannot_hold_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="picks k=3 of each layer: train it with"):
        formats.save(made(d_out=D), tmp_path, "circuit_tracer_clt")
    with pytest.raises(UsageError, match="writes 15"):
        formats.save(made(Threshold()), tmp_path, "circuit_tracer_clt")
    with pytest.raises(UsageError, match="circuit_tracer_clt is for it"):
        formats.save(made(), tmp_path, "saelens")
