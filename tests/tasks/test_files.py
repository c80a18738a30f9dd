"""Prompt files: answers that their words say, one's own prompts, refusals with the row."""

import json
from pathlib import Path

import pytest

from saelab.errors import UsageError
from saelab.tasks import Drawn, build, files
from tests.tasks.test_tokens import words
from tests.tasks.tokenizers import reads


@pytest.fixture(scope="module")
def bridge(bundled: str):
    """Something with the bundled model's tokenizer."""
    return reads(Path("data") / bundled)


@pytest.fixture(scope="module")
def gpt2(assets: Path):
    """Something with GPT-2's tokenizer."""
    return reads(assets / "gpt2_tokenizer")


OWN = {
    "prompt": "ab",
    "answers": ["c"],
    "attributes": {"x": 1},
    "positions": {"first": 0},
    "group": 7,
}


def test_own_prompts_are_lines_or_an_array_with_twins_where_wanted(tmp_path: Path):
    short = {"prompt": "ab", "answer": "c", "attributes": {"x": 2}}
    twin = {"prompt": "ab", "twin": "bb", "answers": ["c"], "wrong": ["d"]}
    lines = tmp_path / "set.jsonl"
    lines.write_text(json.dumps(OWN) + "\n\n" + json.dumps(short) + "\n")
    table = tmp_path / "set.json"
    table.write_text(json.dumps([OWN, short]))
    expected = [
        Drawn("ab", "", ("c",), (), {"first": 0}, {"x": "1"}, "7"),
        Drawn("ab", "", ("c",), (), {}, {"x": "2"}),
    ]
    for path in (lines, table):
        assert files.read_words(path)[:3] == ("set", "probability_difference", expected)
    table.write_text(json.dumps([twin]))
    name, metric, (drawn,), _ = files.read_words(table)
    assert (name, metric) == ("set", "logit_difference")
    assert drawn == Drawn("ab", "bb", ("c",), ("d",))


TABLE = [
    {
        "clean": "Ann, Bob, Bob to",
        "corrupted": "Ann, Bob, Tom to",
        "answers": [" Ann", " Anna"],
        "wrong": " Bob",
        "labels": {"io": "Ann"},
        "positions": {"io": 2, "end of it": "to"},
    },
    {
        "clean": "Bob, Ann, Ann to",
        "corrupted": "Bob, Ann,\nTom to",
        "answers": " Bob",
        "wrong": [" Ann"],
        "labels": {"io": "Bob"},
        "positions": {"io": "Bob", "end of it": 15},
    },
]
SAME = [
    Drawn(
        "Ann, Bob, Bob to",
        "Ann, Bob, Tom to",
        (" Ann", " Anna"),
        (" Bob",),
        {"io": 2, "end of it": 15},
        {"io": "Ann"},
    ),
    Drawn(
        "Bob, Ann, Ann to",
        "Bob, Ann,\nTom to",
        (" Bob",),
        (" Ann",),
        {"io": 2, "end of it": 15},
        {"io": "Bob"},
    ),
]
CSV = (
    "Clean,corrupted,answer,wrong answer,labels.io,positions,group\n"
    '"Ann, Bob, Bob to","Ann, Bob, Tom to","["" Ann"", "" Anna""]", Bob,Ann,'
    '"{""io"": 2, ""end of it"": ""to""}",\n'
    '"Bob, Ann, Ann to","Bob, Ann,\nTom to", Bob, Ann,Bob,'
    '"{""io"": 2, ""end of it"": 15}",\n'
)


def test_a_table_says_the_same_as_csv_json_lines_frame_or_list(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    (tmp_path / "set.csv").write_text(CSV)
    (tmp_path / "set.json").write_text(json.dumps(TABLE))
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, TABLE)))
    frame = pandas.DataFrame(TABLE).assign(group=[float("nan"), None])
    paths = [tmp_path / name for name in ("set.csv", "set.json", "set.jsonl")]
    for source in (*paths, frame, TABLE, pandas.read_csv(tmp_path / "set.csv")):
        words = files.read_words(source, ("answers", "corrupted", "labels"))
        assert words.prompts == SAME and words.metric == "logit_difference" and words.own
    assert files.read_words(frame).name == "prompts" and files.read_words(paths[0]).name == "set"
    (tmp_path / "set.csv").write_text(CSV.replace(",group\n", "\n"))
    with pytest.raises(UsageError, match="prompt 1 has more cells than the header"):
        files.read_words(tmp_path / "set.csv")


GOOD = {"clean": "Ann sat. He saw", "corrupted": "Bob sat. He saw", "answer": " the", "wrong": "."}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean": ""}, "prompt 2 has no clean text; its fields are clean, corrupted, answer"),
        ({"answer": None}, "prompt 2 has no answer; its fields are clean, corrupted, wrong, give"),
        ({"answer": []}, "prompt 2 has no answer"),
        ({"corrupted": float("nan")}, "prompt 2 has no corrupted twin: a circuit is what changes"),
        ({"corrupted": "Bob sat."}, r"prompt 2: 'Ann sat. He saw' has \d+ tokens, its twin \d"),
        ({"answer": " Solomonic"}, r"prompt 2: the answer ' Solomonic' is \d+ tokens after 'Ann"),
        ({"wrong": [" a", 3]}, "prompt 2 is not such as .*answers are texts"),
        ({"positions": {"he": "sat. sat."}}, "stands 0 times in 'Ann sat. He saw', not once"),
        ({"twin": "Bob sat. He saw"}, "'twin' gives 'corrupted' a second time"),
        ({"labels": 3}, "prompt 2 is not such as"),
    ],
)
def test_a_pair_that_cannot_be_used_is_refused_with_its_row(bridge, change: dict, message: str):
    pandas = pytest.importorskip("pandas")
    good = [GOOD, GOOD | {"clean": "Ann sat. She saw", "corrupted": "Bob sat. She saw"}]
    assert len(files.read(good, bridge).clean) == 2
    with pytest.raises(UsageError, match=message):
        files.read(pandas.DataFrame([GOOD, GOOD | change]), bridge)


def test_what_is_left_out_of_given_prompts_is_counted(bridge):
    longer = [{**GOOD, "clean": f"So {GOOD['clean']}", "corrupted": f"So {GOOD['corrupted']}"}]
    other = GOOD | {"answer": " a"}
    found = files.given([GOOD, *longer, other, GOOD], bridge)
    assert len(found.task.clean) == 2
    assert found.left_out == {"unusable": 0, "other_lengths": 1, "repeated": 1}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"prompt": "ab"}', "prompt 2 has no answer; its fields are prompt, give 'answers'"),
        ('{"prompt": "ab", "answer": "c", "attributes": 3}', "prompt 2 is not such as {"),
        ('{"prompt": "ab", "answers": [3]}', "prompt 2 is not such as {"),
        ('{"answer": "c"}', "prompt 2 has no clean text"),
        ("not json", "is neither a CSV table nor JSON"),
        ("[1]", "holds no prompts"),
    ],
)
def test_a_row_that_is_no_prompt_is_named(tmp_path: Path, bad: str, message: str):
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(OWN) + "\n" + bad + "\n")
    with pytest.raises(UsageError, match=message):
        files.read_words(path)


def test_own_prompts_with_answers_of_several_tokens_in_place_are_refused(bridge, tmp_path: Path):
    path = tmp_path / "kings.json"
    rows = [{"prompt": "He gave it to", "answer": answer} for answer in (" Anna", " Solomon")]
    path.write_text(json.dumps(rows))
    own = files.read_words(path)
    with pytest.raises(UsageError, match=r"task kings: prompt 2: the answer ' Solomon' is \d tok"):
        build(own.name, bridge, own.prompts, own.metric)


def test_prompt_files_give_the_answers_their_words_say(bridge, tmp_path: Path):
    table = tmp_path / "ioi.csv"
    table.write_text(
        ",clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n"
        '0,"Then, Mary and John sat. Mary spoke to","Then, Mary and John sat. Susan spoke to",'
        '"Then, Mary and John sat. John spoke to",1,2\n'
    )
    ioi = files.read(table, bridge)
    assert (ioi.name, ioi.labels) == ("ioi", {"io": ["John"], "s": ["Mary"], "order": ["BAB"]})
    assert (
        bridge.tokenizer.decode(ioi.right[0]) == " John"
        and bridge.tokenizer.decode(ioi.wrong[0]) == " Mary"
    )
    assert words(bridge, ioi, "io") == ["John"] and words(bridge, ioi, "s2") == ["Mary"]
    years = tmp_path / "years.csv"
    years.write_text(
        "clean,corrupted,label\nThe war lasted from 1509 to 15,The war lasted from 1501 to 15,9\n"
    )
    later = files.read(years, bridge)
    assert (
        later.labels["year"] == ["09"]
        and later.right.shape == (1, 90)
        and later.metric == "probability_difference"
    )
    assert words(bridge, later, "year") == ["09"]


def test_real_prompt_files_are_read_with_gpt2s_tokenizer(gpt2, assets: Path):
    found = {file.name: files.read(file, gpt2) for file in (assets / "circuit_prompts").iterdir()}
    assert {name: drawn.name for name, drawn in found.items()} == {
        "ioi_llama.csv": "ioi",
        "greater_than_data.csv": "greater-than",
        **{
            f"{kind}_{split}.json": "agreement"
            for kind in ("simple", "nounpp")
            for split in ("train", "test")
        },
    }
    assert (
        len(found["greater_than_data.csv"].clean) > 500 and len(found["ioi_llama.csv"].clean) > 100
    )
    assert len(files.read(assets / "circuit_prompts" / "simple_test.json", gpt2, n=20).clean) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "clean,other\na,b\n",
            "prompt 1 has no answer; its fields are clean, other, give 'answers'",
        ),
        ("text,other\na,b\n", "has the fields text, other: known layouts are own: answers, clean"),
        ("clean,corrupted,label\n", "holds no prompts"),
        (
            "clean,corrupted,label\nfrom 1732 to 17,from 1701 to 17,soon\n",
            "prompt 1 is not one of greater-than: ValueError.*invalid literal",
        ),
        (
            "clean,corrupted,label\nfrom 1732 to 17,in 1701 to 17 or so,32\n",
            "1 cannot be used, for example: prompt 1: .from 1732 to 17. has 8 tokens, its twin 10",
        ),
    ],
)
def test_a_file_that_is_no_prompt_file_is_refused(bridge, tmp_path: Path, text: str, message: str):
    file = tmp_path / "prompts.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        files.read(file, bridge)
    with pytest.raises(UsageError, match=r"cannot read the prompts .*No such file"):
        files.read(tmp_path / "none.csv", bridge)
    (tmp_path / "prompts.json").write_text("[1, 2")
    with pytest.raises(UsageError, match="neither a CSV table nor JSON"):
        files.read(tmp_path / "prompts.json", bridge)
