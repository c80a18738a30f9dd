"""`saelab browse` and its pages without a browser: what is found, refused, drawn and escaped."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from apps.browser import PLACES, draw
from apps.cli import browse, main
from saelab.errors import UsageError
from saelab.features.reader import FeatureIndex
from saelab.folders import find
from tests import toy_index as toy
from tests.apps.pages import APP, opened_page


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    toy.make_run(root / "toy")
    toy.make_run(root / "sweep" / "signed", signed=True)
    bare = root / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text("k: 3\n")
    (bare / "metrics.jsonl").write_text("")
    shutil.copytree(root / "toy" / "sae", bare / "sae")
    return root


@pytest.fixture
def opened(runs):
    with FeatureIndex(runs / "toy" / "features.db") as opened:
        yield opened


@pytest.fixture
def app(runs, monkeypatch):
    monkeypatch.setenv(PLACES, json.dumps([str(runs)]))

    def open_page(page, /, **query):
        return opened_page(page, **{"run": "toy", **query})

    return open_page


def body(tester):
    return "".join(
        element.proto.body
        for element in tester.main.children.values()
        for element in flat(element)
        if is_html(element)
    )


def flat(block):
    children = getattr(block, "children", None)
    return [inner for child in children.values() for inner in flat(child)] if children else [block]


def is_html(element):
    return element.type == "html"


# --- finding and refusing -----------------------------------------------------------------------


def test_runs_are_found_below_folders_and_named_by_their_path(runs, tmp_path):
    assert list(find([runs])) == ["bare", "sweep/signed", "toy"]
    assert find([runs / "toy"]) == {"toy": runs / "toy"}
    assert find([tmp_path, tmp_path / "missing"]) == {}


def test_runs_lie_where_the_place_is_given(runs, monkeypatch):
    monkeypatch.chdir(runs / "sweep")
    assert find(["."]) == {"signed": Path("signed")}
    assert find(["../toy"]) == {"toy": Path("../toy")}
    assert find(["../sweep", runs / "sweep"])["signed"] == Path("../sweep/signed")


def test_runs_of_one_name_are_told_apart(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "run" / "sae").mkdir(parents=True)
        (tmp_path / place / "run" / "sae" / "sae.json").write_text("{}")
    found = find([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "run"])
    assert list(found) == ["run", str(tmp_path / "b" / "run")]


def test_a_folder_that_may_not_be_listed_hides_no_other(runs, tmp_path, monkeypatch):
    for name in ("a", "lost+found", "z"):
        shutil.copytree(runs / "bare", tmp_path / name)
    listed, is_file = Path.iterdir, Path.is_file

    def locked(path):
        if "lost+found" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", lambda path: locked(path) or listed(path))
    monkeypatch.setattr(Path, "is_file", lambda path: locked(path) or is_file(path))
    assert list(find([tmp_path])) == ["a", "z"]
    assert list(browse.check_places((tmp_path,))) == ["a", "z"]
    with pytest.raises(PermissionError):  # what looking into it raises
        (tmp_path / "lost+found" / "config.yaml").is_file()


@pytest.fixture
def served(monkeypatch):
    calls = []
    monkeypatch.setattr(browse, "serve", lambda places, port: calls.append((places, port)))
    return calls


def test_the_address_and_what_each_run_lacks_are_printed(runs, served, capsys):
    assert main(["browse", str(runs)]) == 0
    printed = capsys.readouterr().out
    port = served[0][1]
    assert f"http://127.0.0.1:{port}" in printed
    assert f"bare: no feature index yet, `saelab index {runs / 'bare'}` makes it" in printed


def test_a_run_whose_training_has_not_finished_is_told_no_other_verb(
    runs, served, capsys, tmp_path, monkeypatch
):
    (tmp_path / "begun").mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        shutil.copy(runs / "bare" / name, tmp_path / "begun")
    assert main(["browse", str(tmp_path)]) == 0
    assert "begun: training has not finished" in capsys.readouterr().out
    monkeypatch.setenv(PLACES, json.dumps([str(tmp_path)]))
    for page in ("overview", "features"):
        shown = body(opened_page(page, run="begun"))
        assert "training has" in shown and "saelab index" not in shown
        assert "saelab eval" not in shown


def test_json_is_all_of_stdout(runs, served, capsys):
    assert main(["browse", str(runs), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["address"] == f"http://127.0.0.1:{served[0][1]}"
    assert printed["runs"]["toy"] == str(runs / "toy")


def test_no_runs_says_how_to_make_one(tmp_path, served, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["browse"]) == 2
    assert "no runs in runs: `saelab demo` makes one" in capsys.readouterr().err.splitlines()[-1]
    assert not served


def test_a_missing_folder_is_named(runs, served, capsys):
    assert main(["browse", str(runs), "nowhere"]) == 2
    assert "no such folder: nowhere" in capsys.readouterr().err


def test_a_taken_port_is_refused_and_a_free_one_found(runs, served, capsys):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert main(["browse", str(runs), "--port", str(taken)]) == 2
        assert f"port {taken} is taken" in capsys.readouterr().err
    assert main(["browse", str(runs), "--port", "70000"]) == 2
    assert main(["browse", str(runs), "--port", str(taken)]) == 0
    assert served == [((runs,), taken)]


def test_no_free_port_is_an_error(monkeypatch):
    monkeypatch.setattr(browse, "_free", lambda port: False)
    with pytest.raises(UsageError, match="8501 to 8599 are all taken"):
        browse.pick_port(None)


# --- pages --------------------------------------------------------------------------------------


def test_the_overview_shows_metrics_beside_references(app):
    shown = body(app("overview"))
    assert "<b>0.104</b>" in shown and "0.100 to 0.108" in shown
    assert "&lt;b&gt;zero" in shown and "<b>zero" not in shown
    assert "of live features" in shown
    assert re.search(r"1 of 24", shown)


def test_the_feature_page_follows_the_address(app, opened):
    shown = body(app("feature", feature="3"))
    assert "<h1>Feature 3</h1>" in shown
    assert "also found by seed 9" in shown
    assert 0 < shown.count('class="example"') < len(opened.examples(3))


def test_a_dead_feature_says_so(app):
    assert f"did not fire on the {toy.C * (toy.T - 1):,} tokens" in body(
        app("feature", feature=str(toy.DEAD))
    )


@pytest.mark.parametrize("feature", ["24", "-1", "<script>alert(1)</script>", "1e9"])
def test_an_impossible_feature_is_named_and_escaped(app, feature):
    shown = body(app("feature", feature=feature))
    assert f"No feature <code>{draw.text(feature)}</code>: this SAE has features 0 to 23" in shown
    assert "<script>" not in shown


@pytest.mark.parametrize("page", ["overview", "features", "feature", "search"])
def test_an_unknown_run_lists_the_runs(app, page):
    shown = body(app(page, run="../../etc"))
    assert "There is no run <code>../../etc</code>" in shown
    assert "sweep%2Fsigned" in shown


@pytest.mark.parametrize("page", ["overview", "features", "feature", "search"])
def test_a_run_without_an_index_says_what_to_type(app, page, runs):
    assert f"<code>saelab index {runs / 'bare'}</code>" in body(app(page, run="bare"))


@pytest.mark.parametrize("page", ["overview", "features"])
def test_pages_name_a_run_as_the_user_named_its_folder(page, runs, monkeypatch):
    from apps.browser import server

    monkeypatch.setattr(server, "run", lambda host, port: None)
    monkeypatch.setenv(PLACES, "")  # is as it was afterwards
    monkeypatch.chdir(runs)
    browse.serve((Path(),), 8600)
    shown = body(opened_page(page, run="bare"))
    assert "<code>saelab index bare</code>" in shown
    assert str(runs) not in shown
    browse.serve((runs,), 8600)  # named by its whole path, it is told by that
    assert str(runs) in body(opened_page(page, run="bare"))


def test_an_index_of_another_version_says_so(app, runs, tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "features.db").write_text("no database " * 500)
    monkeypatch.setenv(PLACES, json.dumps([str(tmp_path)]))
    assert "not a feature index" in body(app("features", run="old"))
    whole = (runs / "toy" / "features.db").read_bytes()
    (tmp_path / "old" / "features.db").write_bytes(whole[: len(whole) // 2])
    assert "it was cut" in body(app("features", run="old"))


def test_the_table_sorts_and_pages_by_its_address(app):
    shown = body(app("features", sort="max", descending="0"))
    values = [
        float(found)
        for found in re.findall(
            r'<td class="n">[\d.]+%</td><td class="n">[\d.]+</td><td class="n">([\d.]+)</td>', shown
        )
    ]
    assert (
        len(values) == toy.F and values[:-1] == sorted(values[:-1]) and values[-1] == 0
    )  # the dead one stays last
    assert "1 to 24 of 24 features" in shown
    assert "no sort" in body(app("features", sort="id; drop table"))


@pytest.mark.parametrize("page", ["abc", "-1", "1e9", "", "9" * 400, "²"])
def test_a_page_number_that_is_none_shows_the_first(app, page):
    assert "1 to 24 of 24 features" in body(app("features", page=page))


def test_search_pages_answer(app):
    for page in ("features", "search"):
        assert "selectivity × coverage" in body(app(page, q="cat"))
        assert "No feature matches <code>zebra</code>" in body(app(page, q="zebra"))


def test_the_pages_load_neither_torch_nor_a_model_library():
    names = ["load", "links", "state", "tables", "charts", "pages"]
    heavy = ["torch", "transformers", "transformer_lens", "wandb"]
    load = f"import sys\nfor name in {names}: __import__(f'apps.browser.{{name}}')\n"
    code = load + f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=APP.parents[2]
    )
    assert done.stdout.strip() == "[]"


def test_a_damaged_report_is_named_on_the_page(app, runs):
    report = runs / "toy" / "report.json"
    whole = report.read_text()
    report.write_text(whole[:-9])
    try:
        shown = body(app("overview"))
        assert shown.count("report.json is damaged, it is no JSON") == 1
        assert "<h1>toy</h1>" in shown and "of live features" in shown, "the rest goes on"
    finally:
        report.write_text(whole)
