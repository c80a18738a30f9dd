"""The pages of the list and of one feature without a browser: what a list holds, in which order it
is walked, what people say in it, and what is said where something is wrong."""

import json
import re
from typing import Any

import numpy as np
import pytest

from apps.browser import PLACES, listing, load, load_lists, plane
from apps.browser.listing import Listing
from saelab.errors import UsageError
from saelab.features.annotations import Annotations, identity
from saelab.features.listing import Keep
from saelab.features.reader import FeatureIndex
from saelab.files import write_json
from saelab.runs import RunFolder
from tests import toy_index as toy
from tests.apps.pages import opened_page
from tests.apps.test_browse import body


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    toy.make_run(root / "toy")
    toy.make_run(root / "signed", signed=True)
    return root


@pytest.fixture
def opened(runs):
    with FeatureIndex(runs / "toy" / "features.db") as opened:
        yield opened


@pytest.fixture
def here(runs, opened):
    """The toy's annotations, which end with the test."""
    path = runs / "toy" / "annotations.db"
    yield Annotations(path, identity(opened.summary), toy.F)
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


@pytest.fixture
def app(runs, monkeypatch):
    monkeypatch.setenv(PLACES, json.dumps([str(runs)]))

    def shown(page, /, **query):
        return body(opened_page(page, **{"run": "toy", **query}))

    return shown


def numbers(shown: str) -> list[int]:
    """The features of a list, in order."""
    return [int(found) for found in re.findall(r'<th scope="row" class="n">.*?>(\d+)</a>', shown)]


# --- what the address says ----------------------------------------------------------------------


def test_a_list_is_what_its_address_says():
    every = Listing(
        *("for", "tokens", True, "max", False, 0.001, 0.1, "1", "-1", "list:a b"),
        box=(-0.5, 0.25, -1, 1),
    )
    assert listing.read(every.query()) == every
    assert Listing().query() == {} and listing.read({}) == Listing()
    assert every.filters == 6 and Listing(q="x").filters == 0


@pytest.mark.parametrize(
    "query",
    [
        {"low": "nan", "high": "2", "box": "1,2,inf,4"},
        {"low": "-1", "high": "x", "box": "1,2,3"},
        {"scope": "everything", "alive": "2", "sign": "0", "only": "mine", "descending": "yes"},
    ],
)
def test_what_cannot_be_meant_is_as_usual(query):
    assert listing.read(query) == Listing()


def test_blanks_around_a_text_are_part_of_it():
    assert Listing(q=" for").asked == '" for"' and Listing(q="for").asked == "for"
    assert listing.read({"q": " for"}).q == " for"


# --- the list -----------------------------------------------------------------------------------


def test_the_list_goes_by_interest_and_says_how(app, opened):
    shown = app("features")
    assert numbers(shown) == opened.order("interest").tolist()
    assert "By falling interest: strength x surprise" in shown


def test_a_search_ranks_by_selectivity_times_coverage_and_says_so(app, opened):
    shown = app("features", q="self", scope="tokens")
    hits = opened.search("self", ["tokens"])
    assert numbers(shown) == [hit.feature for hit in hits] and len(hits) > 1
    assert "selectivity × coverage" in shown
    assert "No feature matches <code>zebra</code>" in app("features", q="zebra")


def test_the_old_address_of_search_is_answered(app):
    assert numbers(app("search", q="self")) == numbers(app("features", q="self"))


def test_filters_keep_what_the_index_keeps(app, opened):
    shown = numbers(app("features", low="0.05", high="0.2", sort="density"))
    assert shown == opened.order("density", True, Keep(density=(0.05, 0.2))).tolist()
    assert 0 < len(shown) < toy.F
    assert numbers(app("features", alive="0")) == [toy.DEAD]
    assert "No feature is kept with the filters that are set" in app("features", low="0.999")
    found = numbers(app("features", only="found", sort="feature", descending="0"))
    assert found == [n for n in range(toy.F) if any(m.found for m in opened.matches(n))]


def test_labels_stars_and_lists_are_shown_searched_and_filtered_by(app, here):
    here.write(3, label="closing <b>brackets", starred=True)
    here.write(7, note="something about zebras", add=["to do"])
    shown = app("features")
    assert "closing &lt;b&gt;brackets" in shown and shown.count("★") == 1
    assert numbers(app("features", q="zebra")) == [7]
    assert numbers(app("features", q="brackets", scope="labels")) == [3]
    assert sorted(numbers(app("features", only="labelled"))) == [3, 7]
    assert numbers(app("features", only="starred")) == [3]
    assert numbers(app("features", only="list:to do")) == [7]
    shown = app("feature", feature="3")
    assert '<span class="label">closing &lt;b&gt;brackets</span>' in shown


def test_another_sae_of_the_run_does_not_wear_the_labels(app, here):
    Annotations(here.path, "another", toy.F).write(3, label="closing brackets")
    shown = app("features")
    assert "closing brackets" not in shown
    assert "Annotations of 1 features are of another SAE of this run, and not shown." in shown


def test_a_box_of_the_map_keeps_what_lies_in_it(runs, monkeypatch, opened):
    toy.make_run(runs / "mapped")
    toy.build(runs / "mapped" / "features.db", plane=True)
    with FeatureIndex(runs / "mapped" / "features.db") as mapped:
        laid = mapped.map()
        assert laid is not None
        box = (-2.0, 2.0, -2.0, float(np.nanmedian(laid.places[:, 1])))
        wanted = Listing(box=box)
        found = load_lists.listed(runs / "mapped", mapped, wanted).order
        inside = [n for n in range(toy.F) if laid.places[n, 1] <= box[3]]
        assert sorted(found.tolist()) == inside and 0 < len(inside) < toy.F
        traces: Any = plane.figure(laid.places, found, box).data
    assert sum(len(trace["x"]) for trace in traces) == toy.F - 1  # the silent one has no place
    assert sorted(traces[1]["customdata"]) == inside
    with pytest.raises(UsageError, match="this index has no map"):
        load_lists.listed(runs / "toy", opened, wanted)


def test_damaged_annotations_are_told_and_the_rest_goes_on(app, here):
    here.path.write_bytes(b"no database " * 500)
    for page, query in (("features", {}), ("feature", {"feature": "3"})):
        shown = app(page, **query)
        assert "annotations.db is damaged" in shown
        assert "strongest tokens" in shown or "Top contexts" in shown


# --- one feature --------------------------------------------------------------------------------


def steps(shown: str) -> list[int]:
    """The features before and after."""
    return [
        int(found)
        for side in ("prev", "next")
        for found in re.findall(rf'class="step {side}"[^>]*feature=(\d+)', shown)
    ]


def test_previous_and_next_walk_the_list_that_the_address_names(app, opened):
    order = opened.order("density").tolist()
    middle = order[5]
    shown = app("feature", feature=str(middle), sort="density")
    assert steps(shown) == [order[4], order[6]] and f"6 of {toy.F}" in shown
    assert "sort=density" in re.findall(r'class="step next"[^>]*href="([^"]*)"', shown)[0]
    assert steps(app("feature", feature=str(order[0]), sort="density")) == [order[-1], order[1]]
    hits = [hit.feature for hit in opened.search("self", ["tokens"])]
    shown = app("feature", feature=str(hits[0]), q="self", scope="tokens")
    assert steps(shown)[1] == hits[1]


def test_a_feature_outside_its_list_is_beside_its_numbers(app):
    shown = app("feature", feature="3", alive="0")
    assert steps(shown) == [2, 4] and " of 1</a>" not in shown
    assert steps(app("feature", feature="3", sort="nonsense")) == [2, 4]


def test_contexts_are_as_wide_and_as_many_as_the_address_says(app, opened):
    few = app("feature", feature="3")
    every = app("feature", feature="3", more="1")
    assert few.count('class="example"') < every.count('class="example"')
    assert every.count('class="example"') == len(opened.examples(3))
    narrow, whole = (app("feature", feature="3", width=width) for width in ("10", "all"))
    assert len(narrow) < len(few) < len(whole)
    assert app("feature", feature="3", width="99").count("step on") == 1


def test_the_two_poles_of_a_signed_feature_stand_apart(app):
    shown = app("feature", run="signed", feature="3")
    above, below = shown.index(">Above 0</h2>"), shown.index(">Below 0</h2>")
    assert above < below
    assert 'class="act neg' not in shown[above:below]
    assert "Below 0" not in app("feature", feature="3")


def test_the_runs_of_matches_are_links(app, runs, opened):
    toy.make_run(runs / "twin")
    header = runs / "twin" / "sae" / "sae.json"
    said = json.loads(header.read_text())
    said.pop("sha256", None)
    said["origin"]["seed"] = 9
    header.write_text(json.dumps(said))
    load.st.cache_data.clear()
    match = opened.matches(3)[0]
    assert match.name == "seed 9"
    assert f'href="/feature?run=twin&amp;feature={match.nearest}"' in app("feature", feature="3")


# --- what comes again in other seeds -------------------------------------------------------------


def stability(runs, **changes):
    """What `saelab compare --stability` writes, of the toy: feature f in f % 3 of 2 other seeds."""
    share = [min(f % 3 / 2, 1) for f in range(toy.F)]
    columns = {"fired": [5] * toy.F, "cosine": share, "cofiring": [0.0] * toy.F}
    columns |= {"subspace": [None, *[0.5] * (toy.F - 1)], "start": [0.25] * toy.F}
    means = {name: {"value": 0.5, "null": 0.01} for name in ("cosine", "cofiring", "subspace")}
    folder = RunFolder(runs / "toy")
    document = {"others": ["a", "b"], "sae": folder.sae_digest(), "features": columns}
    write_json(folder.stability, {**document, "means": means, **changes})


def test_lists_are_filtered_and_sorted_by_what_comes_again(app, runs, opened):
    assert "comes again" not in app("features") and "writes alike" not in app(
        "feature", feature="2"
    )
    stability(runs)
    try:
        every = listing.Listing(only="stable")
        found = load_lists.listed(runs / "toy", opened, every).order
        assert sorted(found) == [f for f in range(toy.F) if f % 3 == 2]
        none = load_lists.listed(runs / "toy", opened, listing.Listing(only="unstable")).order
        assert sorted(none) == [f for f in range(toy.F) if f % 3 == 0]
        by = load_lists.listed(runs / "toy", opened, listing.Listing(sort="stable")).order
        assert [f % 3 for f in by] == sorted((f % 3 for f in by), reverse=True)
        assert "comes again" in app("features", sort="stable")
        page = app("feature", feature="2")
        assert "writes alike" in page and "in 2 of 2 seeds" in page and "0.25" in page
        stability(runs, sae="0" * 64)  # of an SAE that lay there before
        assert "comes again" not in app("features")
    finally:
        RunFolder(runs / "toy").stability.unlink()
