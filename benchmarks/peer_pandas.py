"""The same comparison with pandas and statsmodels: read, pair, McNemar, clustered error per task and category. Prints JSON."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests


def read(path: Path) -> Any:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            rows = json.loads(archive.read(archive.namelist()[0]))
        frame = pd.DataFrame(rows)
        return pd.DataFrame(
            {"item": frame.question_id, "score": (frame.pred == frame.answer).astype(float), "cluster": frame.src, "by": frame.category}
        )
    return pd.read_parquet(path)


def compare(frame: Any) -> dict[str, float]:
    d = frame.score_c - frame.score_b
    table = pd.crosstab(frame.score_b == 1, frame.score_c == 1).reindex(index=[True, False], columns=[True, False], fill_value=0)
    fit = sm.OLS(d.to_numpy(), np.ones(len(d))).fit(
        cov_type="cluster", cov_kwds={"groups": frame.cluster_b.astype("category").cat.codes.to_numpy()}
    )
    return {"n": len(d), "change": float(d.mean()), "p": float(mcnemar(table, exact=True).pvalue), "se": float(fit.bse[0])}


def main(base: Path, candidate: Path) -> None:
    frame = read(base).merge(read(candidate), on="item", suffixes=("_b", "_c"))
    out = {"total": compare(frame)}
    if "by_b" in frame:
        out |= {label: compare(part) for label, part in frame.groupby("by_b")}
        out["holm"] = list(multipletests([v["p"] for k, v in out.items() if k != "total"], method="holm")[1])
    print(json.dumps(out, default=float))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
