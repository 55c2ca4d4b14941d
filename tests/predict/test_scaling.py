"""A tax over widths: laws that are planted are found, what cannot be compared is left out and told, and nothing is decided by too little."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

from aligntax.predict import scaling as module  # noqa: E402
from aligntax.predict.gather import Direction, Sums  # noqa: E402
from aligntax.predict.inputs import Capability, Objective, Request  # noqa: E402
from aligntax.predict.scaling import effective_dimensions, model_variance, predict_scaling, rate_variance  # noqa: E402
from aligntax.predict.scaling_results import Scaling, ScalingSettings, as_json  # noqa: E402
from aligntax.report.scaling_text import by_width, laws_text, lead, models_grid, overlaps_grid, view  # noqa: E402
from aligntax.report.terminal import console  # noqa: E402
from aligntax.stats.directions import BlockSample  # noqa: E402
from aligntax.stats.packing import chance_corrected  # noqa: E402
from aligntax.stats.paired import critical_value  # noqa: E402
from aligntax.stats.widths import fit_widths, packing_variance  # noqa: E402

M = 6
TASKS = tuple(f"t{n}" for n in range(M))
WIDTHS = (32, 48, 64, 96, 128)
QUICK = ScalingSettings(items=96, prompts=96)


def requests(name: str, size: int = 96) -> tuple[Request, ...]:
    return tuple(Request(f"{name} {n}", f"{name} {n} {'even' if n % 2 == 0 else 'odd'}", None, " yes") for n in range(size))


OBJECTIVE = Objective("o", requests("bad"), requests("good"))
CAPABILITIES = [Capability(name, requests(name)) for name in TASKS]


def model(width: int, seed: int = 0, name: str | None = None, deep: int = 4) -> Any:
    """What is asked of a model where nothing is read of it."""
    config = SimpleNamespace(num_hidden_layers=deep, get_text_config=lambda: SimpleNamespace(num_hidden_layers=deep))
    return SimpleNamespace(
        name=name or f"w{width}s{seed}", identity={"weights": f"{width} {seed}"}, width=width, seed=seed,
        local=SimpleNamespace(model=SimpleNamespace(config=config)),
    )  # fmt: skip


def plant(
    monkeypatch: pytest.MonkeyPatch,
    rate: Callable[[int], float],
    noise: Callable[[int], float] = lambda _: 0.05,
    task_noise: Callable[[int, str], float] = lambda *_: 0.1,
) -> list[int]:
    """Directions whose tax rate is that of their width; the layers that were read."""
    layers: list[int] = []

    def axes(one: Any) -> Any:
        return np.linalg.qr(np.random.default_rng([one.seed, one.width]).normal(size=(one.width, M + 1)))[0].T

    def rows(sums: Sums, mean: Any, size: float, seed: Sequence[int]) -> Sums:
        n = len(sums.blocks)
        x = mean + size * np.random.default_rng(seed).normal(size=(n, len(mean)))
        sums.add(np.arange(n), x.astype(np.float32)[:, None])
        return sums

    def direction(one: Any, _objective: Any, sides: Any, blocks: Any, count: int, at: Sequence[int], *_: Any) -> Direction:
        layers.extend(at)
        basis, tau = axes(one), rate(one.width)
        v = np.sqrt(tau / M) * basis[:M].sum(axis=0) + np.sqrt(1 - tau) * basis[M]
        made = [
            rows(Sums(blocks[what], count), sign * v, noise(one.width), (one.seed, one.width, k))
            for k, (what, sign) in enumerate((("unsafe", 0.5), ("safe", -0.5)))
        ]
        return Direction(made[0], made[1])

    def grads(one: Any, _items: Any, into: Sums, _layers: Any, _want: Any, tell: Any, *_: Any) -> Sums:
        number = len(told.setdefault((one.seed, one.width), []))
        told[one.seed, one.width].append(number)
        number %= M
        tell(len(into), len(into))
        return rows(into, axes(one)[number], task_noise(one.width, TASKS[number]), (one.seed, one.width, 7, number))

    def states(one: Any, items: Sequence[Request], into: Sequence[Sums], *_: Any) -> None:
        draw = np.random.default_rng([one.seed, one.width, 8])
        of_task = {name: draw.normal(size=one.width) for name in TASKS}
        odd = {name: draw.normal(size=one.width) for name in TASKS}
        x = np.array(
            [
                of_task[r.text.split()[0]] + (odd[r.text.split()[0]] if r.text.endswith("odd") else 0) + draw.normal(size=one.width)
                for r in items
            ]
        )
        for sums in into:
            sums.add(np.arange(len(items)), x.astype(np.float32)[:, None])

    told: dict[tuple[int, int], list[int]] = {}
    monkeypatch.setattr(module, "read_direction", direction)
    monkeypatch.setattr(module, "read_gradients", grads)
    monkeypatch.setattr(module, "read_states", states)
    return layers


def predicted(models: Sequence[Any], want: ScalingSettings = QUICK) -> Scaling:
    return predict_scaling(iter(models), OBJECTIVE, CAPABILITIES, want)


# -- what is planted -------------------------------------------------------------------------------------------------------------


def test_packing_with_a_part_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = plant(monkeypatch, lambda d: 0.2 + 0.8 * M / d)
    found = predicted([model(d) for d in WIDTHS])
    assert set(layers) == {2}
    law = found.by_width.study.fits["packing"]  # type: ignore[union-attr]
    assert law.tau0_interval[0] > 0.1  # type: ignore[index]
    assert law.tau0_interval[0] < 0.2 < law.tau0_interval[1]  # type: ignore[index]
    assert law.kappa_interval[0] < 0.8 * M < law.kappa_interval[1]  # type: ignore[index]
    assert found.by_width.study.rivals["constant"] > 6  # type: ignore[union-attr]
    assert "constant is ruled out" in laws_text(found.by_width.study, None)
    beyond = found.beyond.study.fits["constant"]  # type: ignore[union-attr]
    assert beyond.tau0 == pytest.approx(0.2, abs=0.04)
    said = lead(found)
    assert "it falls with width" in said
    assert "something stays" in said
    assert "19 % and 5 %, since they are less crowded" in said
    one = found.counted[0]
    assert one.rate is not None
    assert one.adjusted == pytest.approx(float(chance_corrected(one.rate, M, 32)))
    band = found.by_width.band
    assert [band[0].at, band[-1].at] == pytest.approx([32, 512])
    assert all(b.low < b.value < b.high for b in band)


def test_a_constant_and_chance_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda _: 0.3)
    constant = predicted([model(d) for d in WIDTHS])
    law = constant.by_width.study.fits["packing"]  # type: ignore[union-attr]
    assert law.kappa_interval[0] < 0 < law.kappa_interval[1]  # type: ignore[index]
    assert constant.by_width.study.fits["constant"].tau0 == pytest.approx(0.3, abs=0.03)  # type: ignore[union-attr]
    assert "constant" in laws_text(constant.by_width.study, None).split("AIC")[0]
    assert "no clear change with width" in lead(constant)
    plant(monkeypatch, lambda d: M / d)
    chance = predicted([model(d) for d in WIDTHS])
    law = chance.by_width.study.fits["packing"]  # type: ignore[union-attr]
    assert law.tau0_interval[0] < 0 < law.tau0_interval[1]  # type: ignore[index]
    assert law.tau0 == pytest.approx(0, abs=0.05)
    assert law.kappa == pytest.approx(M, abs=2)
    assert "no more than crowding is shown" in lead(chance)
    assert "That anything stays in ever wider models is not shown" in lead(chance)


def test_random_concepts_and_overlaps_stand_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda _: 0.9)
    found = predicted([model(d) for d in WIDTHS])
    assert len(found.concepts) >= 20
    for one in found.models:
        assert one.concepts == pytest.approx(M / one.width, abs=0.12)  # directions that have nothing to do with the tasks
        assert one.as_large == pytest.approx(1 / (1 + len(found.concepts)))
        assert one.effective is not None
        assert 8 < one.effective < one.width
    assert found.concepts_p == pytest.approx(1 / (1 + len(found.concepts)))
    assert "safety is entangled with these tasks" in lead(found)
    assert all(row[-1] == "5" for row in overlaps_grid(found).rows)  # every task is raised in every model
    none = predicted([model(d) for d in WIDTHS], replace(QUICK, concepts=0))
    assert (none.concepts, none.concepts_p, none.models[0].concepts) == ((), None, None)
    assert none.models[0].effective is not None
    assert [one.rate for one in none.models] == [one.rate for one in found.models]


def test_equal_seeds_tell_the_same_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda d: 0.1 + M / d)
    text = as_json(predicted([model(d) for d in WIDTHS]))
    assert as_json(predicted([model(d) for d in WIDTHS[::-1]])) == text
    told = json.loads(text)
    assert (told["schema"], told["kind"], len(told["models"])) == (1, "scaling", 5)
    assert told["models"][0]["fit"]["overlaps"][0]["cosine"] == pytest.approx(np.sqrt((0.1 + M / 32) / M), abs=0.1)
    screen = console()
    with screen.capture() as captured:
        screen.print(view(predicted([model(d) for d in WIDTHS])))
    assert "Overlaps by width" in captured.get()
    assert "nan" not in captured.get()


# -- what is left out --------------------------------------------------------------------------------------------------------------


def test_a_model_and_a_task_left_out_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(
        monkeypatch,
        lambda d: 0.2 + M / d,
        lambda d: 40.0 if d == 48 else 0.2,
        lambda d, task: 40.0 if (d, task) in ((64, "t1"), (48, "t2")) else 0.2,
    )
    found = predicted([model(d) for d in WIDTHS])
    assert found.tasks == ("t0", "t2", "t3", "t4", "t5")  # t2 is noise only where nothing counts
    assert all(one.fit is None or len(one.fit.capability_reliabilities) == 5 for one in found.models)
    assert any("t1 left out in all models" in note and "w64s0" in note for note in found.notes)
    assert any(note.startswith("w48s0 left out: not identified: the safety direction has reliability") for note in found.notes)
    assert [row[-1] for row in models_grid(found).rows] == ["", "left out", "", "", ""]
    study = found.by_width.study
    assert study is not None
    assert (study.widths, study.preferred) == (4, None)
    assert "Nothing is decided: 4 different widths" in laws_text(study, None)


def test_tasks_that_span_a_narrow_model(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda d: 0.3)
    found = predicted([model(d) for d in (48, 64)], QUICK)
    assert len(found.counted) == 2
    assert found.by_width.study is None
    assert "rates are known at 2 widths" in str(found.by_width.reason)
    assert "What is beyond chance on average is not known: no law is fitted" in lead(found)
    narrow = module._rate(read(7), [f"t{n}" for n in range(7)], None, 0.95)
    assert (narrow.rate, narrow.chance) == (None, 1.0)
    assert "7 tasks in 7 dimensions span everything" in str(narrow.reason)


def read(width: int) -> Any:
    sample = BlockSample(np.ones((8, width)), np.ones(8))
    return module._Read("n", {}, 2, 4, sample, {f"t{n}": sample for n in range(7)}, {}, None)


def test_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda _: 0.3)
    with pytest.raises(InputError, match="all 2 have 64 dimensions"):
        predicted([model(64), model(64, 1)])
    with pytest.raises(InputError, match="w64s0 and other are one model; name every model once"):
        predicted([model(64), model(64, 0, "other"), model(32)])
    with pytest.raises(InputError, match="w64s0 and w64s0 are named alike"):
        predicted([model(64), model(64, 1, "w64s0")])
    with pytest.raises(InputError, match=r"--depth lies between 0 .* got 2"):
        predicted([model(64)], ScalingSettings(depth=2))
    plant(monkeypatch, lambda _: 0.3, lambda _: 40.0)
    with pytest.raises(InputError, match="in none of the models the safety direction can be told from noise; use more prompts"):
        predicted([model(32), model(64)])
    plant(monkeypatch, lambda _: 0.3, task_noise=lambda *_: 40.0)
    with pytest.raises(InputError, match="no task has a direction that can be told from noise in all models that count"):
        predicted([model(32), model(64)])

    def broken(*_: Any) -> Any:
        raise InputError("text 3 has 900 tokens, more than the 256 that it takes")

    monkeypatch.setattr(module, "read_direction", broken)
    with pytest.raises(InputError, match="w32s0: text 3 has 900 tokens"):
        predicted([model(32), model(64)])


# -- seeds and variances -------------------------------------------------------------------------------------------------------------


def test_models_of_one_width_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds count as one width, and their spread beyond errors widens what is said of laws."""
    planted = {128: iter((0.05, 0.45, 0.2)), 32: iter((0.6,)), 48: iter((0.35,))}
    plant(monkeypatch, lambda d: next(planted[d]))
    found = predicted([model(128), model(128, 1), model(128, 2), model(32), model(48)])
    assert found.by_width.study is not None
    assert (found.by_width.study.widths, found.by_effective.study.widths) == (3, 3)  # type: ignore[union-attr]
    (spread,) = found.spreads
    assert (spread.width, spread.models) == (128, 3)
    assert spread.sd == pytest.approx(np.std([0.05, 0.45, 0.2], ddof=1), abs=0.05)
    assert spread.p < 0.001
    assert found.between is not None
    assert found.between > 1
    law = found.by_width.study.fits["packing"]
    alone = fit_widths(
        [one.width for one in found.counted], [float(one.rate or 0) for one in found.counted], [sum_of(one) for one in found.counted]
    ).fits["packing"]
    assert all(one.variance > sum_of(one) for one in found.counted if one.variance is not None)
    assert law.chi2 < alone.chi2 / 4
    assert by_width(found)[128] == pytest.approx(0.233, abs=0.05)


def sum_of(one: Any) -> float:
    growth, least = rate_variance(one.fit)
    return float(4 * growth * max(one.rate, 0.0) + least)


def test_variances_do_not_depend_on_rates_that_are_small_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda d: 0.2 + M / d)
    fit = predicted([model(d) for d in WIDTHS]).counted[0].fit
    assert fit is not None
    growth, least = rate_variance(fit)
    t = critical_value(0.95, fit.blocks - 1.0)
    for limit in (fit.low, fit.high):  # a limit is a rate whose own variance puts the estimate t errors away
        assert (fit.estimate - limit) ** 2 == pytest.approx(t**2 * (4 * growth * limit + least), rel=1e-6)  # type: ignore[operator]
    with pytest.raises(ValueError, match="not identified has no variance"):
        rate_variance(replace(fit, estimate=None))
    d = np.array(WIDTHS, dtype=float)
    same = np.full(5, 0.001)
    rates = 6 / d
    rates[-1] = 0.001  # by chance
    variances, between = model_variance(d, rates, same, same / 100, packing_variance(d, 0.0, M), 0.95)
    assert variances[-1] > 0.3 * variances[-2]
    assert between >= 0
    assert model_variance(d, 6 / d, same, same / 100, packing_variance(d, 0.0, M), 0.95)[1] == 0


def test_laws_cover_what_is_planted() -> None:
    """The lab's widths, rates with the errors that squared lengths have, and models that differ as random packing has it."""
    rng = np.random.default_rng(5)
    d, m, tau0, lengths = np.array([32.0, 48, 64, 96, 128, 128, 128]), 12, 0.15, 0.001
    packing, covered, preferred = packing_variance(d, 0.0, m), 0, 0
    for _ in range(60):
        true = tau0 + (1 - tau0) * rng.beta(m / 2, (d - m) / 2)
        noise = rng.normal(size=(7, 4)) * np.sqrt(lengths)
        rates = (np.sqrt(true) + noise[:, 0]) ** 2 + np.sum(noise[:, 1:] ** 2, axis=1) - 4 * lengths
        variances, between = model_variance(d, rates, np.full(7, lengths), np.full(7, 8 * lengths**2), packing, 0.95)
        study = fit_widths(d, rates, variances + between * packing)
        low, high = study.fits["packing"].tau0_interval  # type: ignore[misc]
        covered += low <= tau0 <= high
        preferred += study.preferred is not None
    assert covered >= 52  # of 60, for 57; 3 standard errors are 5
    assert preferred <= 6


def test_effective_dimensions_are_unbiased() -> None:
    rng = np.random.default_rng(2)
    spread = np.array([3.0, 2, 1, 1, 1, *[0.3] * 40])
    true = np.sum(spread**2) ** 2 / np.sum(spread**4)
    found = [effective_dimensions(5 + rng.normal(size=(25, 45)) * spread) for _ in range(300)]
    assert all(x is not None for x in found)
    assert np.median([x for x in found if x is not None]) == pytest.approx(true, rel=0.06)
    x = rng.normal(size=(25, 45)) * spread
    values = np.linalg.eigvalsh(np.cov(x.T))
    assert values.sum() ** 2 / np.sum(values**2) < float(effective_dimensions(x) or 0)
    assert effective_dimensions(x[:7]) is None
    assert effective_dimensions(np.ones((20, 4))) is None


def test_models_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda _: 0.3)
    events: list[str] = []

    def opened() -> Iterator[Any]:
        for width in (32, 64):
            events.append(f"open {width}")
            yield model(width)
            events.append(f"close {width}")

    progress: list[tuple[str, int, int]] = []
    predict_scaling(opened(), OBJECTIVE, CAPABILITIES, QUICK, lambda *at: progress.append(at))
    assert events == ["open 32", "close 32", "open 64", "close 64"]
    assert {what for what, _, _ in progress} == {"w32s0", "w64s0"}
    assert all(done <= total for _, done, total in progress)
