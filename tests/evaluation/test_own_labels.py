"""One's own labels: stretches are averaged as read by hand, probes are those of a plain
scikit-learn script, a planted latent tells its label and shuffled labels are told by nothing."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from saelab import SAE, Choice, models
from saelab.errors import UsageError
from saelab.evaluation import own_labels, stretches, text_probes
from saelab.evaluation.labelled import Labelled
from saelab.evaluation.labelled_texts import with_parents
from saelab.evaluation.probing import Examples
from saelab.models import running
from saelab.origin import Origin
from saelab.tasks.labelled_texts import LabelledTexts
from tests.conftest import HOOK

TEXTS = LabelledTexts(["ab", "cdef", "ab"], ["x", "y", "y"])


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def sae() -> SAE:
    sae = SAE(32, 48, Choice(4), seed=3)
    sae.origin = Origin(HOOK)
    return sae


def by_hand(model: Any, text: str) -> torch.Tensor:
    """[T, D]: activations of a text's tokens, without what starts the context."""
    ids = torch.tensor([[0, *model.tokenizer(text)["input_ids"]]])
    return running.read(model, ids, [HOOK])[HOOK][0, 1:]


def test_stretches_are_the_last_token_the_mean_and_each_token(model: Any, sae: SAE):
    spans = TEXTS._replace(spans=[(0, 2), (1, 3), (1, 2)])
    known = stretches.contexts(model, spans, None, cut=False)
    levels = stretches.of_rows(known, spans)
    x_TD = by_hand(model, "cdef")
    codes_TF = sae.encode(x_TD).to_dense().detach()
    made = {
        level: stretches.averaged(model, HOOK, known.ids, {"sae": sae}, parts)
        for level, parts in levels.items()
    }
    assert np.allclose(made["last"]["neurons"][1], x_TD[2], atol=1e-5)
    assert np.allclose(made["pooled"]["neurons"][1], x_TD[1:3].mean(0), atol=1e-5)
    assert np.allclose(made["pooled"]["sae"][[1]].toarray()[0], codes_TF[1:3].mean(0), atol=1e-4)
    tokens = stretches.of_tokens(known, spans, 100, 0)
    of_the_second = tokens.text == known.rows[1]
    assert tokens.labels["y"][of_the_second].tolist() == [False, True, True, False]
    assert tokens.first[of_the_second].tolist() == [1, 2, 3, 4]  # none of what starts the context


def test_a_text_that_is_too_long_is_refused_or_its_end_is_read(model: Any):
    long = TEXTS._replace(texts=["ab", "c" * 40, "ab"])
    with pytest.raises(UsageError, match="text 2 has 40 tokens: give from 1 to 31"):
        stretches.contexts(model, long, None, cut=False)
    known = stretches.contexts(model, long, None, cut=True)
    assert known.cut == 1 and max(map(len, known.ids)) == 32


def examples(n: int, seed: int) -> Examples:
    """Twenty latents of different sizes; three know something of the label; texts in twos."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.5
    inputs = rng.random((n, 20)) * (rng.random((n, 20)) < 0.4) * np.linspace(1, 50, 20)
    for latent, shift in ((2, 0.8), (11, 9.0), (17, 14.0)):
        inputs[:, latent] += shift * labels * (rng.random(n) < 0.5)
    return Examples(scipy.sparse.csr_array(inputs), labels, np.arange(n) // 2)


def script(train: Examples, test: Examples, k: int) -> dict[str, float]:
    """The same probe by scikit-learn's own pipeline, search and scores."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
    from sklearn.model_selection import GridSearchCV
    from sklearn.preprocessing import StandardScaler

    x, x_test = train.inputs.toarray(), test.inputs.toarray()
    size = [abs(column[column != 0]).mean() for column in x.T]
    apart = [
        abs(x[train.labels, f].mean() - x[~train.labels, f].mean()) / size[f] for f in range(20)
    ]
    best = sorted(range(20), key=lambda f: -apart[f])[:k]
    scaler = StandardScaler().fit(x[:, best])
    search = GridSearchCV(
        LogisticRegression(max_iter=2000, tol=1e-6),
        {"C": list(text_probes.CS)},
        scoring="neg_log_loss",
        cv=list(text_probes.folds(train, 0)),
    ).fit(scaler.transform(x[:, best]), train.labels)
    p = search.predict_proba(scaler.transform(x_test[:, best]))[:, 1]
    return {
        "accuracy": float(accuracy_score(test.labels, p > 0.5)),
        "auc": float(roc_auc_score(test.labels, p)),
        "loss": float(log_loss(test.labels, p)),
    }


@pytest.mark.parametrize("k", [1, 5])
def test_a_probe_is_that_of_a_plain_scikit_learn_script(k: int):
    train, test = examples(300, 0), examples(200, 1)
    fitted = text_probes.fit(train, test, k)
    mine, theirs = text_probes.scores(fitted, test), script(train, test, k)
    assert mine["accuracy"].value == theirs["accuracy"]
    assert mine["auc"].value == pytest.approx(theirs["auc"], abs=1e-12)
    assert mine["loss"].value == pytest.approx(theirs["loss"], abs=1e-6)
    other = text_probes.scores(text_probes.fit(train, test, k, c=1e-4), test)["loss"].value
    assert other is not None and abs(other - theirs["loss"]) > 1e-3  # another strength is seen
    for each in mine.values():
        assert each.low < each.value < each.high


def test_directions_along_which_no_training_example_varies_are_no_components():
    """Standardised, rounding would be a feature, huge on other texts."""
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(60, 40)).astype(np.float32).astype(float)
    on_N, groups_N = np.arange(60) % 2 == 0, np.arange(60)
    made = text_probes._components(x_ND, np.arange(20))
    assert made.shape == (60, 19)  # twenty examples around their mean
    rows, _ = text_probes.table({"neurons": x_ND}, {"a": on_N}, groups_N, 0)
    assert all(row["loss"]["value"] < 5 for row in rows if row["dictionary"] == "pca")


def test_folds_share_no_text():
    for fit, score in text_probes.folds(examples(60, 0), 0):
        assert not set(fit // 2) & set(score // 2)


def test_ties_count_half_in_the_auc():
    test = Examples(np.zeros((4, 1)), np.array([True, False, True, False]), np.arange(4))
    fitted = text_probes.Fitted(np.zeros(1, int), 1.0, np.array([1.0, 1.0, 0.0, -1.0]))
    assert text_probes.scores(fitted, test)["auc"].value == (0.5 + 1 + 0 + 1) / 4


def write(path: Path, rows: list[tuple[str, str]], head: str = "text,label") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return path


def test_a_planted_latent_tells_the_letter_a_text_ends_with(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The probe's latent is planted along the letter's own direction; no other has it."""
    monkeypatch.setattr(text_probes, "CS", (0.1, 1.0))  # fewer strengths take less time
    monkeypatch.setattr(text_probes, "KS", (1, 5))
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice([*"cdefgh"], 4)) + "ab"[n % 2] for n in range(120)]
    rows = [(text, text[-1]) for text in texts]
    file = write(tmp_path / "ends.csv", rows)
    x_ND = torch.stack([by_hand(model, text)[-1] for text in texts])
    planted = SAE(32, 48, Choice(4), seed=3)
    planted.origin = Origin(HOOK)
    # The direction along which the two letters lie apart, and a threshold between them.
    sign_N = torch.tensor([-1.0, 1.0]).repeat(60)
    found = torch.linalg.lstsq(torch.cat([x_ND, torch.ones(120, 1)], 1), sign_N[:, None]).solution
    planted.W_enc.data[7], planted.b_enc.data[7] = 1000 * found[:-1, 0], 1000 * found[-1, 0]
    made = own_labels.measure(file, model, {"sae": planted})
    cells = {(row["level"], row["dictionary"], row["k"]): row for row in made["rows"]}
    assert set(cells) == {
        (level, *each)
        for level in ("last", "pooled")
        for each in [("dense", None)]
        + [(name, k) for name in ("sae", "neurons", "pca") for k in (1, 5)]
    }
    one = cells["last", "sae", 1]
    assert one["features"] == [7] and one["auc"]["value"] > 0.9 and one["label"] == "b"
    assert one["auc"]["value"] > cells["last", "neurons", 1]["auc"]["value"]
    assert abs(one["auc"]["null"] - 0.5) < 0.3
    assert cells["last", "dense", None]["accuracy"]["value"] > 0.9


def test_a_parent_is_what_some_label_below_it_says():
    on = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    labels = dict(zip(("keyword/for", "keyword/if/else", "name"), on, strict=True))
    known = with_parents(Labelled(torch.zeros(3, 2), labels, np.arange(3)))
    assert set(known.labels) == {*labels, "keyword", "keyword/if"}
    assert known.labels["keyword"].tolist() == [True, True, False]


def test_what_cannot_be_probed_is_said(model: Any, sae: SAE, tmp_path: Path):
    saes = {"sae": sae}
    one = write(tmp_path / "one.csv", [("same", str(n % 2)) for n in range(60)])
    with pytest.raises(UsageError, match=r"one\.csv: all its rows are of one text"):
        own_labels.measure(one, model, saes)
    few = write(tmp_path / "few.csv", [(f"t{n}", str(n % 2)) for n in range(30)])
    with pytest.raises(UsageError, match=r"no label that can be probed; few, last, 1: .* 20 are"):
        own_labels.measure(few, model, saes)
    long = write(tmp_path / "long.csv", [("a" * 50, "x"), ("b", "y")])
    with pytest.raises(UsageError, match=r"long\.csv: text 1 has 50 tokens: give from 1 to 31"):
        own_labels.measure(long, model, saes)
