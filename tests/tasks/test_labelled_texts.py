"""Files of labelled texts are read as they are kept, and refused with the line."""

from pathlib import Path

import pyarrow
import pytest

from saelab.errors import UsageError
from saelab.tasks import labelled_texts

CSV = 'prompt,prompt_len,target\n"a, b",3,1\nc,1,0\n'


def test_a_folder_in_the_layout_of_sae_probes_is_several_tasks(tmp_path: Path):
    (tmp_path / "1_one.csv").write_text(CSV)
    with pyarrow.output_stream(str(tmp_path / "2_two.csv.zst"), compression="zstd") as file:
        file.write(CSV.replace("c,1,0", "c,1,0\nd,1,0").encode())
    (tmp_path / "3_same.csv").write_text(CSV.replace(",0", ",1"))
    numbers = "".join(f"t{n},1,{n}\n" for n in range(60))
    (tmp_path / "4_number.csv").write_text(f"prompt,prompt_len,target\n{numbers}")
    by_name, left_out = labelled_texts.tasks(tmp_path, most=2)
    assert by_name["1_one"] == by_name["2_two"] == (["a, b", "c"], ["1", "0"], None)
    assert left_out == {
        "3_same": "has one label: two are needed at least",
        "4_number": "has 60 labels, more than 50: a number is no class",
    }


def test_of_a_long_file_rows_are_read_from_end_to_end(tmp_path: Path):
    rows = [f"{n},{'low' if n < 90 else 'high'}" for n in range(100)]  # sorted by label
    (tmp_path / "sorted.csv").write_text("\n".join(["text,label", *rows]))
    by_name, _ = labelled_texts.tasks(tmp_path, most=20)
    assert by_name["sorted"].texts == [str(n) for n in range(0, 100, 5)]
    assert by_name["sorted"].labels.count("high") == 2


def test_spans_are_read_and_one_label_of_them_is_enough(tmp_path: Path):
    path = tmp_path / "spans.csv"
    path.write_text("text,label,start,end\nAnna left,name,0,4\nhi Ben,name,3,6\n")
    assert labelled_texts.read(path).spans == [(0, 4), (3, 6)]
    for span in ("4,4", "0,10", "x,4", "-1,4"):
        path.write_text(f"text,label,start,end\nAnna left,name,{span}\n")
        with pytest.raises(UsageError, match=r"line 2 has the span .* at most 9"):
            labelled_texts.read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text,kind\na,b\n", r"has no column 'label', its head holds text,kind"),
        ("", r"has no column 'text', its head holds nothing"),
        ("text,label\na,1\nb,\n", "line 3 does not fit its head"),
        ("text,label\na,1\nb,1\n", "has one label: two are needed"),
        ("text,label\na,b,c\n", "a text that holds a comma stands in quotes"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, said: str):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UsageError, match=said):
        labelled_texts.read(tmp_path / "a.csv")


def test_what_is_not_there_or_holds_nothing_is_refused(tmp_path: Path):
    for path, said in ((tmp_path / "none.csv", "cannot be read"), (tmp_path, "no CSV file")):
        with pytest.raises(UsageError, match=said):
            labelled_texts.tasks(path)
