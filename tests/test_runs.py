"""A run is opened with the model and cache that it was trained on, wherever they lie now."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import AutoModelForCausalLM

import training
from apps.cli import main
from saelab import SAE, models, opening, runs
from saelab.activations import Cache
from saelab.digests import sha256
from saelab.errors import FailedRun, UsageError
from saelab.files import write_json
from saelab.runs import RunFolder
from tests.conftest import HOOK, make_model


class Place(NamedTuple):
    """A folder with a copy of everything, that may be changed."""

    folder: Path
    run: Path
    cache: Path
    model: Path


@pytest.fixture
def place(tiny_model: Path, tiny_cache: Path, tiny_run: Path, tmp_path: Path) -> Place:
    """The tiny model, cache and run, copied to where the run's record does not look for the
    model."""
    here = Place(tmp_path / "a", *(tmp_path / "a" / part for part in ("run", "cache", "model")))
    for original, copy in zip((tiny_run, tiny_cache, tiny_model), here[1:], strict=True):
        shutil.copytree(original, copy)
    _rewrite(here.run, cache="../cache", model={"name": str(here.model)})
    return here


def _rewrite(run: Path, **changes: object) -> None:
    """Change the origin in a run's header; dicts are changed, not replaced."""
    header = json.loads((run / "sae" / "sae.json").read_text())
    for name, value in changes.items():
        old = header["origin"].get(name)
        header["origin"][name] = old | value if isinstance(value, dict) else value
    write_json(run / "sae" / "sae.json", header)


def test_a_run_and_its_cache_that_move_together_need_no_option(place: Place, tmp_path: Path):
    shutil.move(place.folder, tmp_path / "b")
    folder, sae, cache, model = opening.open(tmp_path / "b" / "run", model=tmp_path / "b" / "model")
    assert cache.path == (tmp_path / "b" / "cache").resolve()
    assert isinstance(sae, SAE) and folder.report == tmp_path / "b" / "run" / "report.json"
    assert models.name_of(model) == str(tmp_path / "b" / "model")
    assert opening.open(tmp_path / "b" / "run" / "sae", model=model).folder.path == folder.path


def test_what_the_trainer_writes_names_the_cache_from_the_run(tiny_run: Path, tiny_cache: Path):
    origin = SAE.load(tiny_run).origin
    assert not Path(str(origin.cache)).is_absolute()
    assert (tiny_run / str(origin.cache)).resolve() == tiny_cache.resolve()
    assert origin.cache_hash == sha256(tiny_cache / "manifest.json")
    assert origin.model and origin.model.weights and origin.seed == 0 and origin.k == 4


@pytest.mark.parametrize("verb", ["eval", "index", "dark-matter"])
def test_a_moved_model_or_cache_is_asked_for_and_taken(
    verb: str, place: Place, capsys, monkeypatch: pytest.MonkeyPatch
):
    place.model.rename(place.folder / "renamed")
    words = [verb, str(place.run), "--tokens", "1k"]
    assert main(words) == 2
    assert "--model DIR says where it lies now" in capsys.readouterr().err
    words += ["--model", str(place.folder / "renamed")]
    assert main(words) == 0
    place.cache.rename(place.folder / "elsewhere")
    capsys.readouterr()
    # A folder of the cache's name that the working directory happens to stand beside is none.
    (place.folder / "here" / "cache").mkdir(parents=True)
    (place.folder / "here" / "stood").mkdir()
    monkeypatch.chdir(place.folder / "here" / "stood")
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "is not at ../cache any more: --cache DIR says where it lies now" in said
    assert main([*words, "--cache", str(place.folder / "elsewhere")]) == 0


def test_a_resharded_model_and_one_in_memory_are_the_runs_and_a_tuned_one_is_not(place: Place):
    whole = AutoModelForCausalLM.from_pretrained(place.model)
    whole.save_pretrained(place.folder / "split", max_shard_size="20KB")
    shutil.copy(place.model / "tokenizer.json", place.folder / "split")
    shutil.rmtree(place.model)
    assert models.identity(opening.open(place.run, place.folder / "split").model).weights
    whole.lm_head.weight.data[5, 5] += 1e-3
    whole.save_pretrained(place.folder / "tuned")
    shutil.copy(place.folder / "split" / "tokenizer.json", place.folder / "tuned")
    with pytest.raises(UsageError, match=r"tuned is another model by its weights: \w{12}, not"):
        opening.open(place.run, place.folder / "tuned")


def test_another_model_of_the_same_width_is_refused_by_the_field_that_differs(
    place: Place, tiny_corpus: Path, tmp_path: Path, capsys
):
    other = make_model(tmp_path / "other", seed=1)
    for verb in ("eval", "index", "dark-matter", "supervise"):
        assert main([verb, str(place.run), "--model", str(other)]) == 2, verb
        assert "is another model by its weights:" in capsys.readouterr().err, verb
    tokenizer = place.model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(UsageError, match="by its tokenizer_hash:"):
        opening.open(place.run)


def test_a_cache_that_was_made_anew_is_no_longer_the_runs(place: Place):
    manifest = place.cache / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(UsageError, match=r"is not the cache that .* was trained on"):
        opening.open(place.run)
    assert opening.open(place.run, cache=place.cache).cache.n_tokens()
    written = json.loads(manifest.read_text())
    written["model"] |= {"revision": "0" * 64, "weights": "0" * 64}
    write_json(manifest, written)
    with pytest.raises(UsageError, match=r"was made by .*tiny, not by .*: they differ in weights"):
        opening.open(place.run, cache=place.cache)


def test_a_hook_or_width_that_does_not_fit_is_named(place: Place):
    _rewrite(place.run, target="blocks.7.hook_out")
    with pytest.raises(UsageError, match=r"this model has no hook 'blocks\.7\.hook_out'"):
        opening.open(place.run, needs=("model",))
    _rewrite(place.run, hook="blocks.0.hook_mlp_out", target="")
    with pytest.raises(UsageError, match=r"holds no hook 'blocks\.0\.hook_mlp_out'; it holds"):
        opening.open(place.run)
    assert opening.open(place.run, needs=("model",)).cache is None


def test_a_run_and_cache_of_schema_1_open_and_are_compared_by_file_hash(
    place: Place, tmp_path: Path
):
    path = place.run / "sae" / "sae.json"
    header = json.loads(path.read_text())
    model = models.identity(place.model, weights=False).to_dict()
    about = {"model": model, "hook": HOOK, "target": HOOK, "cache": str(place.cache), "seed": 0}
    del header["origin"]
    write_json(path, {**header, "schema": "saelab/sae/1", "about": about})
    manifest = json.loads((place.cache / "manifest.json").read_text())
    del manifest["model"]["weights"]
    write_json(place.cache / "manifest.json", manifest)
    assert opening.open(place.run).sae.origin.hooks == (HOOK, HOOK)
    place.model.rename(place.folder / "renamed")
    assert opening.open(place.run, place.folder / "renamed").cache.path == place.cache
    whole = AutoModelForCausalLM.from_pretrained(place.folder / "renamed")
    whole.save_pretrained(place.folder / "split", max_shard_size="20KB")
    shutil.copy(place.folder / "renamed" / "tokenizer.json", place.folder / "split")
    with pytest.raises(UsageError, match="is another model by its revision:"):
        opening.open(place.run, place.folder / "split")  # old records know no values


def test_a_model_whose_weights_have_no_names_is_told_by_what_it_does(place: Place):
    class Unknown:
        """A loaded model that does not say where it comes from."""

        def __init__(self, inner: object) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> object:
            if name in ("inner", "original_model", "base_model_prefix"):
                raise AttributeError(name)
            return getattr(self.inner, name)

    right, wrong = models.load(place.model), models.load(make_model(place.folder / "b", seed=1))
    assert opening.open(place.run, Unknown(right)).model.inner is right
    with pytest.raises(UsageError, match="it is another model, or its weights were changed"):
        opening.open(place.run, Unknown(wrong))


def test_a_shard_is_compared_with_its_checksum_when_it_is_first_read(place: Place):
    cache = Cache(place.cache)
    last = cache.shards("held_out")[-1]["file"]
    whole = (place.cache / last).read_bytes()
    (place.cache / last).write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    assert len(next(cache.batches(HOOK, 100))) == 100
    with pytest.raises(FailedRun, match=f"{last} of .* was altered"):
        list(cache.contexts(HOOK, "held_out"))


def test_documents_are_told_by_their_schema_and_damaged_ones_are_named(tmp_path: Path):
    for name, schema in (("report.json", "report"), ("odd.json", "supervise"), ("x.json", "")):
        (tmp_path / name).write_text(json.dumps({"schema": f"saelab/{schema}/1", "nodes": []}))
    assert set(RunFolder(tmp_path).documents()) == {"report", "supervise", ""}
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(FailedRun, match=r"x\.json is damaged"):
        RunFolder(tmp_path).documents()
    assert runs.read(tmp_path / "none.json") == {}


def test_circuits_take_the_runs_own_model_and_refuse_an_sae_of_another(
    place: Place, tiny_cache: Path, tmp_path: Path, capsys, bundled: str
):
    words = ["circuits", "--method", "codes", "--run", str(place.run), "--out", str(tmp_path / "o")]
    assert main([*words, "--model", bundled]) == 2
    assert "and bundled is another model by its weights:" in capsys.readouterr().err
    assert main(words) == 2  # the tiny model has not the task's words
    assert "tiny" not in capsys.readouterr().err.split(": ")[0]


def test_two_runs_of_different_models_cannot_be_analysed_together(
    place: Place, tiny_corpus: Path, tmp_path: Path, capsys
):
    from tests.conftest import make_cache

    other = make_model(tmp_path / "other", seed=1)
    cache = make_cache(other, tiny_corpus, tmp_path / "cache", n_tokens=4000)
    config = training.Config(
        str(cache), str(tmp_path / "run"), HOOK, features=64, k=4, tokens=1000, batch=256
    )
    second = training.train(config)
    assert main(["dark-matter", str(place.run), str(second)]) == 2
    assert "were trained on different models" in capsys.readouterr().err
