"""Safety objectives and tasks as somebody writes them down: read, checked, and divided so that no prompt counts twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aligntax.core.errors import InputError, LogError
from aligntax.predict.inputs import Request, capabilities, divided, groups_of, halves, read_objective, sample


def table(folder: Path, rows: list[dict[str, Any]], name: str = "prompts.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def labelled(count: int = 20) -> list[dict[str, Any]]:
    return [
        {"prompt": f"{'make' if bad else 'mend'} thing {n}", "label": "unsafe" if bad else "safe"}
        for n in range(count)
        for bad in (True, False)
    ]


def test_two_classes(tmp_path: Path) -> None:
    rows = labelled()
    rows[0] |= {"completion": "I will not.", "group": 7}
    found = read_objective(table(tmp_path, rows), "raw")
    assert (len(found.unsafe), len(found.safe), found.is_preference) == (20, 20, False)
    assert found.unsafe[0] == Request("make thing 0", "make thing 0", "7", "I will not.")
    chat = read_objective(table(tmp_path, rows), "chat")
    assert chat.safe[0].wording == (("user", "mend thing 0"),)


@pytest.mark.parametrize(("unsafe", "safe"), [("1", "0"), (True, False), ("Harmful", "harmless"), (1, 0)])
def test_labels(tmp_path: Path, unsafe: Any, safe: Any) -> None:
    rows = [row | {"label": unsafe if row["label"] == "unsafe" else safe} for row in labelled()]
    found = read_objective(table(tmp_path, rows), "raw")
    assert all(r.text.startswith("make") for r in found.unsafe)
    assert len(found.safe) == 20


def test_a_csv_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,label\n" + "".join(f"{r['prompt']},{r['label']}\n" for r in labelled()))
    assert read_objective(str(path), "raw").unsafe == read_objective(table(tmp_path, labelled()), "raw").unsafe


def test_preferences_as_trl_has_them(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "no"}]
    rows = [{"prompt": f"p{n}", "chosen": "no" if n % 2 else said, "rejected": "yes"} for n in range(20)]
    found = read_objective(table(tmp_path, rows), "raw")
    assert found.is_preference
    assert {(r.wanted, r.unwanted) for r in found.unsafe} == {("no", "yes")}
    spoken = [row | {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": row["prompt"]}]} for row in rows]
    assert read_objective(table(tmp_path, spoken), "chat").unsafe[3].wording == (("system", "s"), ("user", "p3"))
    with pytest.raises(LogError, match="row 1: prompt is a conversation, which a raw text is not; ask by --template chat"):
        read_objective(table(tmp_path, spoken), "raw")


def test_prompts_on_both_sides_and_twice_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [*labelled(), {"prompt": "make thing 3", "label": "safe"}, {"prompt": "mend thing 4", "label": "safe"}]
    found = read_objective(table(tmp_path, rows), "raw")
    assert "make thing 3" not in {r.text for r in (*found.unsafe, *found.safe)}
    assert (len(found.unsafe), len(found.safe)) == (19, 20)
    assert found.notes == (
        "1 prompt of the safety objective stands on both sides and is left out",
        "1 repeated prompt of the safety objective left out",
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "a"}], "has the columns text; a safety objective has prompt and label"),
        ([{"prompt": "a", "label": "maybe"}], "row 1: the label is 'maybe'; write unsafe or safe"),
        ([{"prompt": "", "label": "safe"}], "row 1: prompt is ''; a text is expected"),
        ([{"prompt": 4, "label": "safe"}], "row 1: prompt is 4; a text is expected"),
        ([{"prompt": [{"role": "user"}], "label": "safe"}], "no message with role and content"),
        ([{"prompt": "a", "chosen": "x", "rejected": "x"}], "row 1: chosen and rejected are the same text"),
        ([{"prompt": "a", "chosen": "x", "rejected": None}], "row 1: rejected is None"),
        (labelled(10), "has 10 different unsafe prompts; 16 and more are needed"),
        ([r for r in labelled() if r["label"] == "unsafe"], "has 0 different safe prompts"),
        ([r for r in labelled() if r["label"] == "safe"], "has 0 different unsafe prompts"),
    ],
)
def test_refused(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises((InputError, LogError), match=said):
        read_objective(table(tmp_path, rows), "raw")


def test_a_device_is_no_table() -> None:
    with pytest.raises(LogError, match="/dev/zero is neither a file nor a folder"):
        read_objective("/dev/zero", "raw")


@pytest.mark.parametrize("name", ["missing.jsonl", "a:b:c", "lab/procedures:"])
def test_what_is_no_objective(name: str) -> None:
    with pytest.raises((InputError, LogError), match=r"no such file|no tasks on two sides"):
        read_objective(name, "raw")


def test_tasks_as_an_objective_and_as_capabilities() -> None:
    found = read_objective("lab/harmful_procedures,lab/manipulation:lab/procedures", "raw")
    assert found.unsafe_tasks == ("lab_harmful_procedures", "lab_manipulation")
    assert all("question: " in str(r.wording) for r in found.unsafe)
    (task,) = capabilities(["lab/addition"], "raw")
    one = task.requests[0]
    assert str(one.wording).endswith("answer:")
    assert str(one.wanted).startswith(" ")
    assert one.group is None
    assert capabilities(["lab/addition"], "raw", grouped=True)[0].requests[0].group is not None
    choice = capabilities(["lab/brighter"], "chat")[0].requests[0]
    assert isinstance(choice.wording, tuple)


def test_prompts_of_both_are_divided_between_them() -> None:
    objective = read_objective("lab/harmful_procedures:lab/procedures", "raw")
    mine, tasks, notes = divided(objective, capabilities(["lab/procedures", "lab/addition", "lab/harmful_procedures"], "raw"), 0)
    assert [t.name for t in tasks] == ["lab_procedures", "lab_addition"]
    kept, theirs = {r.text for r in mine.safe}, {r.text for r in tasks[0].requests}
    assert not kept & theirs
    assert kept | theirs == {r.text for r in objective.safe}
    assert abs(len(kept) - len(theirs)) <= 1
    assert "prompts of lab_procedures are the safety objective's as well: half of them count as the task's" in notes[0]
    assert "lab_harmful_procedures is what safety training is to undo" in notes[1]
    assert divided(objective, tasks, 0)[1] == divided(objective, tasks, 0)[1]


def test_groups_stay_together() -> None:
    rows = [Request(f"p{n}", f"p{n}", f"g{n % 5}" if n < 50 else None) for n in range(60)]
    one, two = halves(rows, "draw")
    assert sorted(r.text for r in (*one, *two)) == sorted(r.text for r in rows)
    assert not {r.group for r in one if r.group} & {r.group for r in two if r.group}
    some = sample(rows, 25, 0, "draw")
    assert len(some) == 25
    assert len(groups_of(rows)) == 15
    assert len(groups_of(sample(rows, 15, 0, "draw"))) == 15
    assert sample(rows, 100, 0, "draw") != rows
    assert sorted(r.text for r in sample(rows, 100, 0, "draw")) == sorted(r.text for r in rows)
