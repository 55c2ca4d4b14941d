"""Tables of ratings: every form reads alike, and what no table may hold is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aligntax.atlas.ratings import Columns, Ratings, read_ratings
from aligntax.core.errors import InputError, LogError

LONG = """pair,category,model,rating,group
p1,control,A,0.9,east
p1,control,B,0.8,west
p2,clash,A,0.4,east
p2,clash,B,,west
"""


def table(folder: Path, text: str, name: str = "ratings.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, columns: Columns | None = None) -> Ratings:
    return read_ratings(table(folder, text), columns)


def test_a_row_per_rating(tmp_path: Path) -> None:
    found = read(tmp_path, LONG)
    assert (found.pairs, found.models, found.category) == (("p1", "p2"), ("A", "B"), ("control", "clash"))
    np.testing.assert_array_equal(found.means(), [[0.9, 0.8], [0.4, np.nan]])
    assert found.groups == {"group": ("east", "west")}
    assert found.missing == {("B", "clash", "no rating"): 1}
    assert found.asked.all()


def test_every_form_reads_alike(tmp_path: Path) -> None:
    import duckdb

    rows = [dict(zip(LONG.splitlines()[0].split(","), line.split(","), strict=True)) for line in LONG.splitlines()[1:]]
    json_rows = [{k: (None if v == "" else float(v) if k == "rating" else v) for k, v in row.items()} for row in rows]
    table(tmp_path, LONG)
    duckdb.execute(f"COPY (SELECT * FROM read_csv('{tmp_path / 'ratings.csv'}')) TO '{tmp_path / 'r.parquet'}' (FORMAT parquet)")
    paths = [
        table(tmp_path, LONG.replace(",", "\t"), "r.tsv"),
        table(tmp_path, "".join(json.dumps(row) + "\n" for row in json_rows), "r.jsonl"),
        table(tmp_path, json.dumps(json_rows), "r.json"),
        tmp_path / "r.parquet",
    ]
    expected = read_ratings(tmp_path / "ratings.csv")
    for path in paths:
        found = read_ratings(path)
        np.testing.assert_array_equal(found.x, expected.x)
        assert (found.pairs, found.models, found.groups, found.missing) == (
            expected.pairs,
            expected.models,
            expected.groups,
            expected.missing,
        )


def test_a_row_per_pair(tmp_path: Path) -> None:
    found = read(tmp_path, "pair,category,GLM-5,Expanse\np1,control,0.9,0.8\np2,clash,0.05,0.92\n")
    assert found.models == ("GLM-5", "Expanse")
    np.testing.assert_array_equal(found.means(), [[0.9, 0.8], [0.05, 0.92]])
    assert found.notes == ("a row per pair: the columns GLM-5, Expanse were taken for models",)


def test_orders_variants_and_repeats_have_axes_and_weights(tmp_path: Path) -> None:
    text = (
        "pair,category,model,rating,order,variant,repeat,topic,reference,text_a,text_b,status,mode\n"
        "p,c,A,0.2,AB,P1,1,t,0.5,x,y,ok,sampled\np,c,A,0.4,AB,P1,2,t,,,,ok,sampled\np,c,A,0.9,BA,P1,1,t,,,,ok,sampled\np,c,A,,BA,P1,2,t,,,,refusal,\n"
    )
    found = read(tmp_path, text)
    assert found.x.shape == (1, 1, 2, 1, 2)
    assert found.means()[0, 0] == pytest.approx((0.3 + 0.9) / 2)  # the lost repeat does not tilt the mean to the first order
    assert (found.orders, found.variants, found.topic) == (("AB", "BA"), ("P1",), ("t",))
    assert found.missing == {("A", "c", "refusal"): 1}
    assert (found.reference.tolist(), found.texts, found.modes) == ([0.5], (("x", "y"),), {"A": ("sampled",)})


def test_another_scale(tmp_path: Path) -> None:
    found = read(tmp_path, "pair,category,model,rating,reference\np,c,A,75,50\n", Columns(scale=(0, 100)))
    assert (found.means()[0, 0], found.reference[0]) == (0.75, 0.5)


def test_groups_from_a_table_of_models(tmp_path: Path) -> None:
    models = table(tmp_path, "model,country,stage\nB,US,dpo\nA,CN,base\n", "models.csv")
    found = read_ratings(table(tmp_path, LONG), models=models)
    assert found.groups == {"group": ("east", "west"), "country": ("CN", "US"), "stage": ("base", "dpo")}
    with pytest.raises(InputError, match=r"no column 'family' in .*models\.csv, to group models by; it has model, country, stage"):
        read_ratings(table(tmp_path, LONG), Columns(groups=("family",)), models)
    with pytest.raises(LogError, match="has no row for B, which rated pairs"):
        read_ratings(table(tmp_path, LONG), models=table(tmp_path, "model,country\nA,CN\n", "models.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pair,category,model,rating\np,c,A,1.2\n", r"row 1: rating is '1.2'; ratings are numbers from 0 to 1 \(another scale"),
        ("pair,category,model,rating\np,c,A,nan\n", "row 1: rating is 'nan'"),
        ("pair,category,model,rating\np,c,A,high\n", "row 1: rating is 'high'"),
        ("pair,category,model,rating\np,c,A,.1\np,c,A,.2\n", r"row 2 rates what row 1 rates \(pair p, model A\); a column repeat"),
        ("pair,category,model,rating\np,c,A,.1\np,d,B,.2\n", "row 2: pair p has category 'd' and had 'c' before"),
        ("pair,category,model,rating\np,,A,.1\n", "pair p has no category"),
        ("pair,category,model,rating\n,c,A,.1\n", "row 1 has no pair"),
        ("pair,category,model,rating,group\np,c,A,.1,x\nq,c,A,.1,y\n", "row 2: model A has group 'y' and had 'x' before"),
        ("pair,category,model,rating,reference\np,c,A,.1,2\n", "the reference of pair p is '2', no number from 0 to 1"),
        ("pair,category,model\np,c,A\n", "has no column rating; it has pair, category, model. A table of ratings has a row per rating"),
        ("pair,category\np,c\n", "has pairs and no ratings"),
        ("a,b\n1,2\n", "has no column pair, category, model, rating; it has a, b"),
        ("pair,category,model,rating\n", "holds no rows"),
        ("", "no readable CSV|the first line"),
        ('{"pair": ["p"], "category": "c", "model": "A", "rating": 0.1}\n', "row 1: pair holds a list"),
    ],
)
def test_what_no_table_may_hold(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LogError, match=message):
        read(tmp_path, text)


def test_a_column_that_is_not_there_and_a_scale_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no column 'country' to group models by"):
        read(tmp_path, LONG, Columns(groups=("country",)))
    with pytest.raises(InputError, match="the scale must run from a number to a larger one"):
        read(tmp_path, LONG, Columns(scale=(1, 0)))
    with pytest.raises(LogError, match="is a folder; a table is expected"):
        read_ratings(tmp_path)


def test_repeats_that_do_not_start_again_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"p{k},c,m{k},.5,{k},{k},{k}\n" for k in range(2_500))
    with pytest.raises(LogError, match="spans 2500 x 2500 x 2500"):
        read(tmp_path, "pair,category,model,rating,repeat,order,variant\n" + rows)
