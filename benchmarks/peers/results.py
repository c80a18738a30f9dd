"""What packages make of what we write of a run beside its SAE. Each reader returns counts and
largest relative differences; one that raises has not taken it.

Shapes: N pairs or tokens, F features, D width.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

# The form that each package's folder is written in, and what it is called where it is installed.
FORMS = {
    "delphi": "delphi",
    "sae_dashboard": "sae_dashboard",
    "neuronpedia": "neuronpedia",
    "sae_bench": "saebench",
}
DISTRIBUTIONS = {
    "delphi": "eai-delphi",
    "sae_dashboard": "sae-dashboard",
    "neuronpedia": "neuronpedia",
    "sae_bench": "sae-bench",
}
N_TOKENS = 20_000


def export(folder: Path, run: Path) -> None:
    """Everything of a run with an index and a report, written by `saelab export`; and the pairs
    that its SAE has on the tokens that delphi's folder is made of."""
    from apps.cli import main
    from saelab import opening

    for package, form in FORMS.items():
        line = ["export", str(run), "--to", form, "--out", str(folder / package / "ours")]
        assert main([*line, "--tokens", str(N_TOKENS)]) == 0
    _, sae, cache, _ = opening.open(run, needs=("cache",))
    chunks, n_read, first = [], 0, 0
    for chunk in cache.contexts(sae.origin.hook, "train"):
        kept = int(
            (chunk.counted.sum(1).cumsum(0) - chunk.counted.sum(1) < N_TOKENS - n_read).sum()
        )
        chunk = chunk.part(slice(kept))
        chunks.append(_pairs(sae, chunk, first))
        first += len(chunk.tokens)
        n_read += int(chunk.counted.sum())
        if n_read >= N_TOKENS:
            break
    whole = {name: torch.cat([part[name] for part in chunks]) for name in chunks[0]}
    save_file(whole, folder / "delphi" / "truth.safetensors")
    sae.save(folder / "sae_bench" / "sae")


@torch.no_grad()
def _pairs(sae: Any, chunk: Any, first: int) -> dict[str, Tensor]:
    """Where which feature is how strong, one context at a time."""
    places, values = [], []
    for number, (acts_TD, counted_T) in enumerate(zip(chunk.acts, chunk.counted, strict=True)):
        code = sae.encode(acts_TD)
        kept = counted_T[code.tokens] & (code.values.abs() > 1e-5)
        where = torch.full((int(kept.sum()),), first + number)
        places.append(torch.stack([where, code.tokens[kept], code.features[kept]], dim=1))
        values.append(code.values[kept])
    return {"places": torch.cat(places), "values": torch.cat(values)}


def read(folder: Path, package: str) -> dict[str, Any]:
    """What a package makes of its folder."""
    return READERS[package](folder / package)


def _delphi(place: Path) -> dict[str, Any]:
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents import LatentDataset

    truth, raw = load_file(place / "truth.safetensors"), place / "ours" / "latents"
    opened = LatentDataset(raw, SamplerConfig(), ConstructorConfig(), tokenizer=_Tokenizer())
    parts = [buffer.load() for buffer in opened.buffers]
    places_N3 = torch.cat([locations for locations, _, _ in parts])
    values_N = torch.cat([activations for _, activations, _ in parts]).float()
    order, due = _ordered(places_N3), _ordered(truth["places"])
    assert torch.equal(places_N3[order], truth["places"][due])
    worst = (values_N[order] - truth["values"][due]).abs() / truth["values"][due].abs()
    records = sum(len(record.examples) > 0 for record in opened)
    return {
        "pairs, at the same places": len(places_N3),
        "latents with examples": records,
        "largest relative difference": float(worst.max()),
    }


class _Tokenizer:
    """What delphi asks of a tokenizer while it makes examples."""

    pad_token_id = bos_token_id = eos_token_id = 0

    def batch_decode(self, tokens: Any, **_: Any) -> list[str]:
        return [str(int(token)) for token in tokens]

    def decode(self, tokens: Any, **_: Any) -> str:
        return str(tokens)


def _ordered(places_N3: Tensor) -> Tensor:
    return ((places_N3[:, 0] * 2**16 + places_N3[:, 1]) * 2**24 + places_N3[:, 2]).argsort()


def _batches(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("batch-*.json")):
        yield json.loads(path.read_text())


def _sae_dashboard(place: Path) -> dict[str, Any]:
    from sae_dashboard.neuronpedia.neuronpedia_dashboard import NeuronpediaDashboardBatch
    from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig

    NeuronpediaRunnerConfig(**json.loads((place / "ours" / "run_settings.json").read_text()))
    n_features = 0
    for batch in _batches(place / "ours"):
        opened = NeuronpediaDashboardBatch(**batch)
        assert opened.to_dict() == batch
        n_features += len(opened.features)
    return {"features, every field as we wrote it": n_features}


def _neuronpedia(place: Path) -> dict[str, Any]:
    from neuronpedia.np_activation import Activation
    from neuronpedia.np_feature import Feature, Logit
    from neuronpedia.requests.feature_request import FeatureRequest

    asking, n_features = FeatureRequest(api_key="none"), 0
    asking.send_request = lambda **request: request  # nothing is sent: the body that would be
    for body in _batches(place / "ours" / "upload"):
        at = {"modelId": body["modelId"], "source": body["source"]}
        features = [
            Feature(
                **at,
                index=one["index"],
                density=one["density"],
                top_logits=[Logit(**logit) for logit in one["topLogits"]],
                bottom_logits=[Logit(**logit) for logit in one["bottomLogits"]],
                activations=[
                    Activation(**at, index=one["index"], **activation)
                    for activation in one["activations"]
                ],
            )
            for one in body["features"]
        ]
        assert asking.upload_batch(*at.values(), features)["json"] == body
        n_features += len(features)
    return {"features, whose request its client would send as we wrote it": n_features}


def _sae_bench(place: Path) -> dict[str, Any]:
    import jsonschema
    import sae_bench.evals.core as package
    from pydantic import TypeAdapter
    from sae_bench.evals.core.eval_output import CoreEvalOutput

    (path,) = (place / "ours" / "core").iterdir()
    result = json.loads(path.read_text())
    schema = Path(package.__path__[0]) / "eval_output_schema_core.json"
    jsonschema.validate(result, json.loads(schema.read_text()))
    TypeAdapter(CoreEvalOutput).validate_python(result)
    return {"its schema and its class take the result": True, **_evaluated(place)}


@torch.no_grad()
def _evaluated(place: Path) -> dict[str, float]:
    """What its own `core` evaluation says of our object on a random model, against the SAE."""
    from sae_bench.evals.core import main as core
    from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    from saelab import SAE
    from saelab.formats.saebench import adapter

    sae = SAE.load(place / "sae")
    loaded = load_and_format_sae("mine", adapter(sae), "cpu")
    assert loaded is not None
    mine, generator = loaded[1], torch.Generator().manual_seed(0)
    sizes = {"n_layers": 3, "d_model": sae.d_model, "n_ctx": 32, "d_head": 32, "n_heads": 8}
    shape = HookedTransformerConfig(**sizes, d_vocab=50, act_fn="gelu", seed=0)
    model = HookedTransformer(shape)
    tokens_BT = torch.randint(0, 50, (8, 32), generator=generator)

    class Store:
        """Its source of tokens."""

        def get_batch_tokens(self, size: int) -> Tensor:
            return tokens_BT[:size]

    every = {"compute_l2_norms": True, "compute_sparsity_metrics": True}
    every |= {"compute_variance_metrics": True, "compute_featurewise_density_statistics": True}
    said, _ = core.get_sparsity_and_variance_metrics(
        mine, model, Store(), 1, eval_batch_size_prompts=8, model_kwargs={}, **every
    )
    losses = core.get_downstream_reconstruction_metrics(mine, model, Store(), True, True, 1, 8)
    core.get_featurewise_weight_based_metrics(mine)
    acts = model.run_with_cache(tokens_BT)[1][mine.cfg.hook_name].flatten(0, 1)
    x_hat, code = sae.reconstruct(acts)
    due = {
        "l0": float((code.values != 0).sum() / len(acts)),
        "cossim": float(torch.cosine_similarity(acts, x_hat).mean()),
        "l2_norm_out": float(x_hat.norm(dim=1).mean()),
    }
    assert set(losses) >= {"kl_div_score", "ce_loss_score"}
    return {f"{name}, relative difference": abs(said[name] / due[name] - 1) for name in due}


READERS = {
    "delphi": _delphi,
    "sae_dashboard": _sae_dashboard,
    "neuronpedia": _neuronpedia,
    "sae_bench": _sae_bench,
}
