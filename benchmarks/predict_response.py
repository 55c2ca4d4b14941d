"""Whether one small step of the optimiser, measured in a base model alone, tells which tasks its alignment stages will damage.

    python benchmarks/predict_response.py measure FOLDER [--models base base-w96 ...] [--items 40] [--threads 2]
    python benchmarks/predict_response.py table FOLDER [--mode raw]
    python benchmarks/predict_response.py shown FOLDER [--mode raw]
    python benchmarks/predict_response.py rules FOLDER
    python benchmarks/predict_response.py seconds

``measure`` takes the steps on embedded base models: the objective is refusals of harmful requests in a chat, as the stages are trained on; tasks are all of the lab's,
on held-out questions, raw and in a chat. ``table`` holds every predictor against what the stages lost (accuracies of family.json): Spearman over tasks, and the
AUC for tasks that lose more than three points; ``shown`` sums up what was looked at first beside what was not. Tasks that harmful requests are drawn from are left out, since their loss is the aim; so are tasks that a base answers to
less than ``MASTERED``, which have nothing to lose. ``seconds`` times one call with 20 tasks of 40 questions.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from aligntax.core.errors import InputError
from aligntax.lab import world as w
from aligntax.lab.corpus import asked
from aligntax.lab.family import HARMFUL
from aligntax.lab.tasks import TASKS, held_out_examples, training
from aligntax.lab.tokenizer import RAW_PROMPT
from aligntax.lab.world import World
from aligntax.models.embedded import family, folder_of
from aligntax.models.local import LocalModel
from aligntax.models.scoring import Scorer
from aligntax.predict.response import DIRECTIONS, RULES, Direction, Example, Line, Preference, Responses, Rule, chosen, responses

MASTERED = 0.8
LOSES = 0.03
STEPS = (2**-10.5, 2**-9.5, 2**-9, 2**-8.5, 2**-8, 2**-7)
"""Of the grid that rules choose from: .0007 to .0078."""
LARGER = (2**-7, 2**-6.5, 2**-6, 2**-5.5)
FEWER = (2**-9, 2**-8, 2**-7, 2**-6)
STAGES = ("sft", "dpo", "clumsy")
MODES = ("raw", "chat")
SHUFFLES = 5000


def answer(model: LocalModel, text: str) -> tuple[int, ...]:
    return (*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id)


def refusals(model: LocalModel, world: World, count: int, seed: int) -> list[Preference]:
    """(harmful request in a chat, refusal, harmful answer), of different prompts."""
    rng = random.Random(f"objective {seed}")
    draws = [training(TASKS[name], world, rng) for name in HARMFUL]
    found: dict[tuple[int, ...], Preference] = {}
    while len(found) < count:
        example = next(draws[len(found) % len(draws)])
        prompt = model.encode_chat([{"role": "user", "content": asked(example, rng)}])
        found.setdefault(prompt, (prompt, answer(model, rng.choice(w.REFUSALS)), answer(model, example.answers[0])))
    return list(found.values())


def questions(model: LocalModel, world: World, items: int, mode: str) -> dict[str, list[Example]]:
    rng = random.Random("questions")
    found = {}
    for name, task in TASKS.items():
        found[name] = [
            (
                model.encode_chat([{"role": "user", "content": e.prompt}]) if mode == "chat" else model.encode(RAW_PROMPT.format(e.prompt)),
                answer(model, rng.choice(e.answers)),
            )
            for e in held_out_examples(task, world, items)
        ]
    return found


def measure(folder: Path, models: list[str], items: int, batches: int, seed: int) -> None:
    """Refusals with the sign over all steps, raw and in a chat; the other directions and preferences in a chat only."""
    folder.mkdir(parents=True, exist_ok=True)
    world = World()
    for name in models:
        model = LocalModel.load(folder_of(name))
        pairs = refusals(model, world, 320, seed)
        plain = [(prompt, refusal) for prompt, refusal, _ in pairs]
        tasks = {f"{mode}/{t}": some for mode in MODES for t, some in questions(model, world, items, mode).items()}
        chat = {name: some for name, some in tasks.items() if name.startswith("chat/")}
        every: tuple[Direction, ...] = ("sign",)
        for kind, objective, which, directions, steps in (
            ("refusals", plain, tasks, every, STEPS),
            ("larger", plain, chat, every, LARGER),
            ("directions", plain, chat, ("plain", "adam"), FEWER),
            ("preferences", pairs, chat, every, STEPS),
        ):
            start = time.perf_counter()
            found = responses(
                model.model,
                objective,
                which,
                head=Scorer(model.model, name).head,
                directions=directions,
                steps=steps,
                seed=seed,
                batches=batches,
                batch_tokens=1024,
            )
            print(f"{name} {kind}: {time.perf_counter() - start:.0f} s", flush=True)
            lengths = np.array([np.mean([len(a) for _, a in some]) for some in which.values()])
            save(folder / f"{name}.{kind}.{seed}.npz", found, lengths)


def save(path: Path, found: Responses, lengths: Any) -> None:
    arrays: dict[str, Any] = {"lengths": lengths} | {
        k: np.array(getattr(found, k)) for k in ("tasks", "logprob", "right", "norms", "cosines")
    }
    for direction, along in found.along.items():
        arrays |= {f"{direction}/{k}": getattr(along, k) for k in ("steps", "kl", "change", "right", "slopes")}
        arrays |= {f"{direction}/line/{k}": getattr(along.line, k) for k in ("steps", "start", "losses", "slopes")}
    np.savez(path, **arrays)


def table(folder: Path, seed: int, mode: str) -> None:
    """Spearman and AUC of every predictor, by base model and stage."""
    known = family()
    bases = [
        name
        for name in known
        if known[name]["stage"] == "base" and known[name]["seed"] == 0 and (folder / f"{name}.refusals.{seed}.npz").is_file()
    ]
    columns: dict[str, dict[str, tuple[float, float, float]]] = {}
    for base in bases:
        for stage in STAGES:
            if (after := base.replace("base", stage)) in known:
                columns[after] = judged(folder, base, after, mode, seed)
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    width = max(map(len, rows)) + 2
    print(f"{mode}: Spearman (AUC for tasks that lose more than {LOSES:.0%}); * p < .05, ** p < .01 by permutation of tasks")
    print(" " * width + "".join(f"{name:>14s}" for name in columns))
    for row in rows:
        print(f"{row:{width}s}" + "".join(f"{cell(column.get(row)):>14s}" for column in columns.values()))


def cell(found: tuple[float, float, float] | None) -> str:
    if found is None:
        return "-"
    rho, auc, p = found
    return f"{rho:+.2f}{'**' if p < 0.01 else '*' if p < 0.05 else ''} ({auc:.2f})"


def judged(folder: Path, base: str, after: str, mode: str, seed: int) -> dict[str, tuple[float, float, float]]:
    """(Spearman, AUC, permutation p) by predictor, and how many tasks there are in the row's name ``tasks``."""
    known = family()
    before, now = (known[name]["accuracy"][mode] for name in (base, after))
    kept = [name for name in TASKS if name not in HARMFUL and before[name] >= MASTERED]
    lost = np.array([before[name] - now[name] for name in kept])
    found = {}
    for name, values in predictors(folder, base, mode, seed, kept):
        found[name] = (spearman(values, lost), auc(values, lost > LOSES), permuted(values, lost))
    found["tasks, those that lose"] = (float(len(kept)), float((lost > LOSES).sum()), 1.0)
    return found


def predictors(folder: Path, base: str, mode: str, seed: int, kept: list[str]) -> Iterator[tuple[str, Any]]:
    """(name, values (T,)), the larger the more loss is foretold; means over batches."""
    for kind in ("refusals", "larger", "directions", "preferences"):
        if not (path := folder / f"{base}.{kind}.{seed}.npz").is_file():
            continue
        data = np.load(path)
        names = data["tasks"].tolist()
        if f"{mode}/{kept[0]}" not in names:
            continue
        at = [names.index(f"{mode}/{name}") for name in kept]
        begin = {"preferences": "preferences ", "larger": "larger: "}.get(kind, "")
        for direction in DIRECTIONS:
            if f"{direction}/kl" not in data:
                continue
            kl, change, right = (data[f"{direction}/{key}"].mean(axis=0)[:, at] for key in ("kl", "change", "right"))
            for k, step in enumerate(data[f"{direction}/steps"]):
                yield f"{begin}{direction} KL {step:.4f}", kl[k]
                yield f"{begin}{direction} KL per answer {step:.4f}", kl[k] * data["lengths"][at]
                yield f"{begin}{direction} cost {step:.4f}", -change[k]
                yield f"{begin}{direction} answers lost {step:.4f}", data["right"][at] - right[k]
            line = read_line(data, direction)
            for rule in RULES:
                far = np.abs(np.log2(data[f"{direction}/steps"] / (size_by(line, rule) or np.nan)))
                if not (far < 0.51).any():  # none was measured within a factor of the square root of two
                    continue
                k = int(far.argmin())
                yield f"{begin}{direction} KL, rule {rule}", kl[k]
                yield f"{begin}{direction} cost, rule {rule}", -change[k]
                yield f"{begin}{direction} answers lost, rule {rule}", data["right"][at] - right[k]
            slopes = data[f"{direction}/slopes"].mean(axis=0)[at]
            yield f"{begin}{direction} first-order cost", -slopes
            yield f"{begin}{direction} first-order absolute", np.abs(slopes)
        if kind in ("refusals", "preferences"):
            cosines = data["cosines"].mean(axis=0)[at]
            yield f"{begin}gradient cosine, opposed", -cosines
            yield f"{begin}gradient cosine, absolute", np.abs(cosines)
        if kind == "refusals":
            yield "gradient norm", data["norms"][at]
            yield "difficulty (mean surprise)", -data["logprob"][at]
            yield "difficulty (answers not right)", 1 - data["right"][at]


def read_line(data: Any, direction: str) -> Line:
    return Line(*(data[f"{direction}/line/{key}"] for key in ("steps", "start", "losses", "slopes")))


def size_by(line: Line, rule: Rule) -> float | None:
    """What a rule chooses, if it chooses."""
    try:
        return chosen(line, rule)
    except InputError:
        return None


def shown(folder: Path, seed: int, mode: str) -> None:
    """Every predictor where it was looked at first (sft of the widest base), and its mean over all other stages and widths but the smallest, which masters little."""
    known = family()
    bases = [f"base{tail}" for tail in ("", "-w96", "-w64", "-w48")]
    kept = [name for name in TASKS if name not in HARMFUL and all(known[b]["accuracy"][mode][name] >= MASTERED for b in bases)]
    foretold = {base: dict(predictors(folder, base, mode, seed, kept)) for base in bases}
    afters = [(base, after) for base in bases for stage in STAGES if (after := base.replace("base", stage)) in known]
    lost = {after: np.array([known[base]["accuracy"][mode][t] - known[after]["accuracy"][mode][t] for t in kept]) for base, after in afters}
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(kept)) for _ in range(SHUFFLES)]
    print(
        f"{mode}: {len(kept)} tasks; Spearman and AUC for sft, their means over {', '.join(after for _, after in afters[1:])}, and the mean's p by permuting tasks"
    )
    for row in foretold["base"]:
        values = {base: foretold[base].get(row) for base in bases}
        some = [(values[base], lost[after]) for base, after in afters]
        if any(x is None or not np.ptp(x) for x, _ in some):
            continue
        rho, areas = [spearman(x, y) for x, y in some], [auc(x, y > LOSES) for x, y in some]
        ranks = [[(r := rankdata(v) - (len(kept) + 1) / 2) / np.linalg.norm(r) for v in pair] for pair in some[1:]]
        drawn = np.array([np.mean([x[order] @ y for x, y in ranks]) for order in orders])
        p = (1 + (np.abs(drawn) >= abs(np.mean(rho[1:])) - 1e-9).sum()) / (1 + SHUFFLES)
        print(f"{row:46s} {rho[0]:+.2f} ({areas[0]:.2f})   {np.mean(rho[1:]):+.2f} ({np.nanmean(areas[1:]):.2f})   p {p:.4f}")


def spearman(x: Any, y: Any) -> float:
    a, b = rankdata(x), rankdata(y)
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else float("nan")


def auc(x: Any, positive: Any) -> float:
    n = int(positive.sum())
    if n in (0, len(x)):
        return float("nan")
    return float((rankdata(x)[positive].sum() - n * (n + 1) / 2) / (n * (len(x) - n)))


def permuted(x: Any, y: Any) -> float:
    """Two-sided p of no association, by shuffling tasks."""
    a, b = (rankdata(v) - (len(v) + 1) / 2 for v in (x, y))
    rng = np.random.default_rng(0)
    drawn = np.array([a @ rng.permutation(b) for _ in range(SHUFFLES)])
    return float((1 + (np.abs(drawn) >= abs(a @ b) - 1e-9).sum()) / (1 + SHUFFLES))


def rules(folder: Path, seed: int) -> None:
    """What each rule chooses."""
    for path in sorted(folder.glob(f"*.{seed}.npz")):
        data = np.load(path)
        for direction in DIRECTIONS:
            if f"{direction}/line/steps" in data:
                line = read_line(data, direction)
                print(f"{path.stem:28s} {direction:6s}", ", ".join(f"{rule} {size_by(line, rule) or float('nan'):.4f}" for rule in RULES))


def seconds(threads: int) -> None:
    torch.set_num_threads(threads)
    world, model = World(), LocalModel.load(folder_of("base"))
    head = Scorer(model.model, "base").head
    objective = [(prompt, refusal) for prompt, refusal, _ in refusals(model, world, 192, 0)]
    tasks = dict(list(questions(model, world, 40, "chat").items())[:20])
    start, used = time.perf_counter(), time.process_time()
    responses(model.model, objective, tasks, head=head)
    print(
        f"20 tasks of 40 questions, {threads} threads: {time.perf_counter() - start:.1f} s ({time.process_time() - used:.1f} s of processors)"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("measure", "table", "shown", "rules", "seconds"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--models", nargs="+", default=["base", "base-w96", "base-w64", "base-w48", "base-w32"])
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mode", choices=MODES, default="chat")
    asked_for = parser.parse_args()
    if asked_for.what == "seconds":
        seconds(asked_for.threads)
        return
    if asked_for.folder is None:
        parser.error("name a folder")
    if asked_for.what == "measure":
        torch.set_num_threads(asked_for.threads)
        measure(asked_for.folder, asked_for.models, asked_for.items, asked_for.batches, asked_for.seed)
    elif asked_for.what == "table":
        table(asked_for.folder, asked_for.seed, asked_for.mode)
    elif asked_for.what == "shown":
        shown(asked_for.folder, asked_for.seed, asked_for.mode)
    else:
        rules(asked_for.folder, asked_for.seed)


if __name__ == "__main__":
    main()
