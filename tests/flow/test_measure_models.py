"""Measuring real models, made here: endpoints against local arms, divergences, resumption, templates, adapters."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need

for module, extra in (("torch", "cpu"), ("transformers", "models")):
    need(module, extra)

from aligntax.core.asks import GenerateAsk, Generated
from aligntax.core.errors import InputError
from aligntax.core.kinds import BOUND, BYTES, FORWARD, K1, K3, REVERSE
from aligntax.core.study import Analysis, Elicitation
from aligntax.flow.collect import plan_arm
from aligntax.flow.diff import Comparison
from aligntax.flow.measure import Models, Options, chosen_templates, measure, plan, stage_tree
from aligntax.lab.serve import Server
from aligntax.models.hf import HFModel, _base_of
from aligntax.models.local import LocalModel
from aligntax.models.references import open_model, parse
from aligntax.stats.divergence import kl_at_least, known_to_both
from aligntax.store.answers import Answers
from aligntax.tasks.find import find_tasks
from tests.support.random_models import random_model
from tests.support.suites import suite

TASKS = ("lab/addition", "lab/comparing", "lab/directions")
LIMIT = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {name: random_model(place / name, 32, seed) for name, seed in (("one", 1), ("two", 2))}


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[Server]:
    with Server(LocalModel.load(folders["two"], "two")) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def measured(
    stages: list[tuple[str, str, str | None]],
    templates: tuple[Any, ...] = ("raw",),
    *,
    store: Path | None = None,
    options: Options | None = None,
    tasks: tuple[str, ...] = TASKS,
    how: Elicitation | None = None,
) -> Comparison:
    specs, contrasts = stage_tree(stages, list(templates), how or Elicitation())
    with Models(options or Options()) as models, Answers(store) as answers:
        planned = plan(specs, contrasts, [(task, LIMIT) for task in find_tasks(tasks)], Analysis(), models)
        return measure(planned, answers, lambda *_: None, lambda *_: None)


def numbers(found: Comparison) -> list[tuple[Any, ...]]:
    """What a ledger says, without what is said of where it comes from; scores that are made of log-likelihoods to the digits that these agree in."""
    return [
        (e.task, e.metric, e.n, *(None if x is None else round(x, 4) for x in (e.baseline_value, e.candidate_value, e.change, e.ci_low, e.ci_high)),
         e.verdict, str(e.outcomes))
        for e in found.ledger if e.kind != "divergence"
    ]  # fmt: skip


@pytest.mark.parametrize("template", ["raw", "chat"])
def test_an_endpoint_gives_the_ledger_of_the_local_model(folders: dict[str, Path], server: Server, template: str) -> None:
    """By token ids where its tokenizer is named, by texts where the server tokenizes: the same answers, the same ledger."""
    one, two = str(folders["one"]), str(folders["two"])
    asked = TASKS if template == "raw" else ("lab/addition", "lab/directions")
    with measured([("one", one, None), ("two", two, "one")], (template,), tasks=asked) as local:
        wanted = numbers(local)
    for reference in (f"api:{server.url}#two,tokenizer={two}", f"api:{server.url}#two"):
        with measured([("one", one, None), ("two", reference, "one")], (template,), tasks=asked) as served:
            assert numbers(served) == wanted
            metrics = {e.metric for e in served.ledger if e.kind == "divergence"}
            if "tokenizer" in reference:
                assert metrics == {K1, K3, BOUND}
            elif template == "raw":
                assert metrics == {BYTES}
            else:
                assert any("renders conversations itself" in note for note in served.provenance["arms"]["one"]["left_out"])


def test_choices_after_a_chat_need_the_tokenizer(folders: dict[str, Path], server: Server) -> None:
    with pytest.raises(InputError, match="tokenizer=FOLDER"):
        measured([("one", str(folders["one"]), None), ("two", f"api:{server.url}#two", "one")], ("chat",))


def test_a_model_and_its_copy_are_not_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folders["one"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with measured([("one", str(folders["one"]), None), ("copy", str(copy), "one")], ("raw", "chat")) as found:
        pairs = {("one-raw", "copy-raw"), ("one-chat", "copy-chat")}
        same = [e for e in found.ledger if e.pair in pairs]
        assert {e.kind for e in same} >= {"performance", "divergence"}
        assert all(e.change == 0.0 for e in same)
        assert all(e.verdict != "tax" for e in same)
        assert all(e.detail("top1_agreement") == 1.0 for e in same if e.kind == "divergence")


def logprobs_along(models: tuple[HFModel, HFModel], ask: GenerateAsk) -> list[Any]:
    """(T, V) log-probabilities of both models along what the second one writes, its end included, one forward pass each."""
    import torch

    ((_, said),) = models[1].generate([ask])
    assert isinstance(said, Generated)
    before = ask.prompt.tokens or ()
    ids = torch.tensor([[*before, *said.drawn]])
    with torch.inference_mode():
        rows = [m.local.model(ids).logits[0, len(before) - 1 : -1].double().log_softmax(-1) for m in models]
    return [*rows, torch.tensor(said.drawn), len(said.text.encode())]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_divergences_are_those_of_naive_passes(folders: dict[str, Path], server: Server, temperature: float) -> None:
    """Exact ones, sampled ones and the bound (through an endpoint) against plain forward passes along the same tokens."""
    models = HFModel(folders["one"], "one"), HFModel(folders["two"], "two")
    how = Elicitation(temperature=temperature, trials=3)
    (task,) = find_tasks(("lab/addition",))

    def naive(asked: Any) -> list[Any]:
        """Both models along what the second writes when it is asked as this arm is; draws are the arm's own."""
        asks = plan_arm("two", asked, how, [(task, LIMIT)]).requests.values()
        return [logprobs_along(models, ask) for ask in asks if isinstance(ask, GenerateAsk)]

    rows = naive(models[1])
    tokens = sum(len(ids) for _, _, ids, _ in rows)
    forward = sum(float((p.exp() * (p - q)).sum()) for q, p, _, _ in rows) / tokens
    reverse = sum(float((q.exp() * (q - p)).sum()) for q, p, _, _ in rows) / tokens
    stages = [("one", str(folders["one"]), None), ("two", str(folders["two"]), "one")]
    with measured(stages, tasks=("lab/addition",), how=how) as found:
        whole = {e.metric: e for e in found.ledger if e.kind == "divergence"}
    assert whole[FORWARD].change == pytest.approx(forward, abs=1e-5)
    assert whole[REVERSE].change == pytest.approx(reverse, abs=1e-5)
    assert whole[FORWARD].details["tokens"] == tokens
    assert whole[FORWARD].verdict is None
    assert whole[FORWARD].ci_low < whole[FORWARD].change < whole[FORWARD].ci_high  # type: ignore[operator]
    assert whole[FORWARD].details["temperature"] == temperature

    reference = f"api:{server.url}#two,tokenizer={folders['two']}"
    rows = naive(open_model(parse(reference)))
    tokens = sum(len(ids) for _, _, ids, _ in rows)
    ratios = [(p - q).gather(-1, ids[:, None])[:, 0] for q, p, ids, _ in rows]
    k1 = sum(float(d.sum()) for d in ratios) / tokens
    k3 = sum(float(((-d).expm1() + d).sum()) for d in ratios) / tokens
    bound = sum(_lumped(p, q, ids) for q, p, ids, _ in rows) / tokens
    forward = sum(float((p.exp() * (p - q)).sum()) for q, p, _, _ in rows) / tokens
    with measured([("one", str(folders["one"]), None), ("two", reference, "one")], tasks=("lab/addition",), how=how) as found:
        sampled = {e.metric: e for e in found.ledger if e.kind == "divergence"}
    assert set(sampled) == {K1, K3, BOUND}
    assert sampled[K1].details["tokens"] == tokens
    assert sampled[K1].change == pytest.approx(k1, abs=1e-4)
    assert sampled[K3].change == pytest.approx(k3, rel=1e-4)
    assert sampled[BOUND].change == pytest.approx(bound, rel=1e-3)
    assert 0 < bound <= forward
    estimate = "no estimate of KL" in " ".join(sampled[K1].checks)
    assert estimate == (temperature == 0)


def _lumped(p: Any, q: Any, ids: Any) -> float:
    """The bound from the 20 likeliest of both, added up over places; the estimator itself has its own tests."""
    sides = [
        [
            {t: float(row[t]) for t in {*row.topk(20).indices.tolist(), own}}
            for row, own in zip(side, ids.tolist(), strict=True)
        ]
        for side in (p, q)
    ]  # fmt: skip
    return float(kl_at_least(*known_to_both(*sides), rounding=1e-4).sum())


def test_other_tokens_are_compared_per_byte(folders: dict[str, Path], server: Server) -> None:
    """Where the server tokenizes, tokens are unknown: log-likelihoods of the answers' texts over their bytes."""
    models = HFModel(folders["one"], "one"), HFModel(folders["two"], "two")
    (task,) = find_tasks(("lab/addition",))
    bits = size = 0.0
    for ask in plan_arm("two", models[1], Elicitation(), [(task, LIMIT)]).requests.values():
        assert isinstance(ask, GenerateAsk)
        ((_, said),) = models[1].generate([ask])
        assert isinstance(said, Generated)
        if not said.text.strip():
            continue
        asked = [m.continuation(ask.prompt, said.text) for m in models]
        scored = [next(iter(m.score([one])))[1] for m, one in zip(models, asked, strict=True)]
        bits += (scored[1].total - scored[0].total) / math.log(2)  # type: ignore[union-attr]
        size += len(asked[0].text.encode())
    with measured([("one", str(folders["one"]), None), ("two", f"api:{server.url}#two", "one")], tasks=("lab/addition",)) as found:
        (entry,) = [e for e in found.ledger if e.kind == "divergence"]
    assert entry.metric == BYTES
    assert entry.unit == "bits/byte"
    assert entry.details["bytes"] == size
    assert entry.change == pytest.approx(bits / size, abs=1e-4)
    assert "each model's own tokenization" in " ".join(entry.checks)


def test_outputs_of_another_size_are_compared_by_samples(folders: dict[str, Path], tmp_path: Path) -> None:
    """A chat model with tokens added to its output shares the base's tokenizer, not its vocabulary."""
    larger = LocalModel.load(folders["two"], "larger")
    larger.model.resize_token_embeddings(larger.model.config.vocab_size + 8)
    larger.model.save_pretrained(tmp_path)
    larger.tokenizer.save_pretrained(tmp_path)
    with measured([("one", str(folders["one"]), None), ("two", str(tmp_path), "one")], tasks=("lab/addition",)) as found:
        metrics = {e.metric for e in found.ledger if e.kind == "divergence"}
        notes = found.provenance["arms"]["one"]["left_out"]
    assert metrics == {K1, K3, BOUND}
    assert any("divergence from samples, not over the vocabulary" in note for note in notes)


def test_nothing_depends_on_batches(folders: dict[str, Path]) -> None:
    stages = [("one", str(folders["one"]), None), ("two", str(folders["two"]), "one")]
    with measured(stages) as wide, measured(stages, options=Options(batch_tokens=64)) as narrow:
        assert numbers(wide) == numbers(narrow)
        assert wide.study.id == narrow.study.id


def test_a_second_run_loads_no_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    stages = [("one", str(folders["one"]), None), ("two", str(folders["two"]), "one")]
    with measured(stages, store=tmp_path / "kept.sqlite") as first:
        before = first.ledger.to_dict()
    with measured(stages, store=tmp_path / "kept.sqlite") as again:
        assert again.ledger.to_dict() == before
        assert again.provenance["arms"]["one"]["settings"]["model"]["weights"] == "not loaded: every answer was known"


def test_without_a_chat_template(folders: dict[str, Path], tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in folders["two"].iterdir():
        if file.name != "chat_template.jinja":
            (plain / file.name).write_bytes(file.read_bytes())
    config = json.loads((plain / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(config))
    stages = [("one", str(folders["one"]), None), ("plain", str(plain), "one")]
    with Models(Options()) as models:
        templates, why = chosen_templates(None, stages, models)
    assert templates == ["raw"]
    assert "plain has no chat template" in why
    with pytest.raises(InputError, match="plain has no chat template"):
        measured(stages, ("chat",))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own call
def test_an_adapter_is_a_model_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    need("peft", "train")
    import torch
    from peft import LoraConfig, get_peft_model

    model = LocalModel.load(folders["one"]).model
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(folders["one"])
    adapted.save_pretrained(tmp_path / "adapter")
    plain, mine = HFModel.open(parse(str(folders["one"]))), HFModel.open(parse(str(tmp_path / "adapter")))
    assert plain.identity != mine.identity
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.inference_mode():
        wanted, found = adapted(ids).logits, mine.local.model(ids).logits
    assert torch.allclose(wanted, found, atol=1e-4)
    assert not torch.allclose(plain.local.model(ids).logits, found, atol=1e-2)
    assert mine.template([("user", "hi")]) == plain.template([("user", "hi")])
    mine.tokenizer.chat_template = "{{ messages[0]['content'] }}!"
    mine.tokenizer.save_pretrained(tmp_path / "adapter")
    assert HFModel.open(parse(str(tmp_path / "adapter"))).template([("user", "hi")]) == "hi!"
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(InputError, match="pickled adapters are not read"):
        _ = HFModel.open(parse(str(tmp_path / "adapter"))).local


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("damage", ["missing", "renamed", "none"])
def test_an_adapter_that_does_not_fit_is_refused(folders: dict[str, Path], tmp_path: Path, damage: str) -> None:
    """PEFT goes on with weights of its own making where the file has none."""
    need("peft", "train")
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(LocalModel.load(folders["one"]).model, config).save_pretrained(tmp_path)
    reference = parse(f"{folders['one']},adapter={tmp_path}")
    _ = HFModel.open(reference).local
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    names = sorted(weights)
    if damage == "missing":
        del weights[names[0]]
    else:
        weights = {f"x.{name}": w for name, w in weights.items()} if damage == "renamed" else {"x": weights[names[0]]}
    save_file(weights, file)
    with pytest.raises(InputError, match=r"adapter_model\.safetensors (lacks|has more)"):
        _ = HFModel.open(reference).local


def test_the_revision_of_an_adapters_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base", "revision": "v1.0"}))
    asked = []
    monkeypatch.setattr("aligntax.models.hf.local_folder", lambda reference: asked.append((reference.place, reference.revision)))
    _base_of(tmp_path)
    assert asked == [("org/base", "v1.0")]


def test_another_model_under_the_same_address_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """A server that was started again with the next checkpoint: its answers are not those that were kept."""
    url, store = "", tmp_path / "kept.sqlite"
    for name in ("two", "two", "one"):
        with Server(LocalModel.load(folders[name], "model"), int(url.rpartition(":")[2].partition("/")[0] or 0)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = server.url
            stages = [("base", str(folders["one"]), None), ("tuned", f"api:{url}#model", "base")]
            if name == "two":
                measured(stages, tasks=("lab/addition",), store=store).rows.close()
            else:
                with pytest.raises(InputError, match=r"is not the model whose answers are kept here.*--answers FILE"):
                    measured(stages, tasks=("lab/addition",), store=store)
            server.shutdown()


def renumbered(source: Path, folder: Path) -> Path:
    """The same model by other token ids: vocabulary, embeddings and output rows in another order."""
    import torch

    made = LocalModel.load(source)
    made.tokenizer.save_pretrained(folder)
    told = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = told["model"]["vocab"]
    fixed = {token["id"] for token in told["added_tokens"]}
    free = [k for k in range(len(vocabulary)) if k not in fixed]
    order = dict(zip(free, [*free[1:], free[0]], strict=True))
    told["model"]["vocab"] = {token: order.get(k, k) for token, k in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(told))
    moved = torch.arange(made.model.get_input_embeddings().weight.shape[0])
    for old, new in order.items():
        moved[new] = old
    with torch.no_grad():
        for layer in {id(x): x for x in (made.model.get_input_embeddings().weight, made.model.get_output_embeddings().weight)}.values():
            layer.copy_(layer[moved].clone())
    made.model.save_pretrained(folder)
    return folder


def test_other_token_ids_are_another_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    """The same distribution over texts by other ids: nothing lies between them, and no divergence over ids is made up."""
    other = renumbered(folders["one"], tmp_path / "other")
    rows = [{"text": "question: what is 1 + 2? answer: 3. the lion of ostin " * (k + 1)} for k in range(8)]
    recipe = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    folder = suite(tmp_path / "tasks", "rolled", rows, **recipe)
    specs, contrasts = stage_tree([("one", str(folders["one"]), None), ("other", str(other), "one")], ["raw"], Elicitation())
    with Models(Options()) as models, Answers(None) as answers:
        planned = plan(specs, contrasts, [(task, None) for task in find_tasks(["rolled"], [folder])], Analysis(), models)
        with measure(planned, answers, lambda *_: None, lambda *_: None) as found:
            apart = [e for e in found.ledger if e.kind == "divergence"]
            assert [e.metric for e in apart] == [BYTES]
            assert apart[0].change == pytest.approx(0, abs=1e-6)
            assert "along the given texts;" in apart[0].checks[0]
            assert found.ledger.find("rolled", "bits_per_byte,none").change == pytest.approx(0, abs=1e-6)


def test_an_end_that_a_tokenizer_adds_is_not_part_of_a_prompt(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "ends"
    folder.mkdir()
    for file in folders["one"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    told = json.loads((folder / "tokenizer.json").read_text())
    end = next(token for token in told["added_tokens"] if token["content"] == "<|end|>")
    told["post_processor"]["single"].append({"SpecialToken": {"id": "<|end|>", "type_id": 0}})
    told["post_processor"]["special_tokens"]["<|end|>"] = {"id": "<|end|>", "ids": [end["id"]], "tokens": ["<|end|>"]}
    (folder / "tokenizer.json").write_text(json.dumps(told))
    plain, ends = HFModel(folders["one"], "plain"), HFModel(folder, "ends")
    text = "question: what is 1 + 2? answer:"
    assert ends.tokenizer(text)["input_ids"][-1] == end["id"]
    assert ends.raw(text).tokens == plain.raw(text).tokens
    assert ends.continuation(ends.raw(text), " 3").tokens == plain.continuation(plain.raw(text), " 3").tokens


def test_a_tokenizer_of_another_model_is_refused_while_planning(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    for file in folders["one"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 40}))
    with pytest.raises(InputError, match=r"its tokenizer makes token \d+, and its configuration has 40 tokens"):
        measured([("one", str(folders["one"]), None), ("small", str(folder), "one")])


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere", "is no model: there is no such folder"),
        ("lab:sftt", "no embedded model"),
        ("api:localhost", "names no endpoint"),
        ("api:http://127.0.0.1:9/v1#m", "127.0.0.1:9"),
        ("org/name,dtype=int8", "dtype must be one of"),
        ("org/name,colour=red", "no option 'colour' here; allowed: adapter, dtype"),
        ("api:http://127.0.0.1:9/v1#m,key=SECRET", "^(?!.*SECRET).*ALIGNTAX_API_KEY"),
        ("lab:base,adapter=nowhere", "nowhere is no adapter's folder"),
        ("x" * 5000, "named by a text of 1 to 4,096 characters"),
        ("x" * 400, "is no model: there is no such folder"),
        ("pyproject.toml", "is a file; a model is a folder"),
    ],
)
def test_references_that_name_no_model(reference: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    with pytest.raises(InputError, match=message), Models(Options()) as models:
        models(parse(reference))


def test_broken_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in folders["one"].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    pickled = copied("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, which is not read: convert it to safetensors"):
        HFModel.open(parse(str(pickled)))
    short = copied("short")
    data = (short / "model.safetensors").read_bytes()
    (short / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be loaded as a model"):
        _ = HFModel.open(parse(str(short))).local
    mute = copied("mute")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (mute / file).unlink()
    with pytest.raises(InputError, match="no tokenizer that can be loaded"):
        HFModel.open(parse(str(mute)))
    with pytest.raises(InputError, match="the device 'warp' cannot be used here"):
        HFModel.open(parse(str(folders["one"])), device="warp")


def test_no_numbers_are_failures_and_no_answers(folders: dict[str, Path]) -> None:
    import torch

    from aligntax.core.asks import Failure, GenerateAsk

    model = HFModel(folders["one"], "one")
    prompt = model.raw("question: what is 1 + 2? answer:")
    long = model.raw("the river of galt is " * 100)
    found = dict(model.score([model.continuation(prompt, " 3"), model.continuation(long, " 3")]))
    assert not isinstance(found[0], Failure)
    assert isinstance(found[1], Failure)
    assert "are too many: one takes at most 256" in found[1].why
    with torch.no_grad():
        model.local.model.get_output_embeddings().weight[3] = float("nan")
    scored = dict(model.score([model.continuation(prompt, " 3")]))
    written = dict(model.generate([GenerateAsk(prompt, 5), GenerateAsk(long, 5)]))
    for answer in (scored[0], written[0]):
        assert isinstance(answer, Failure)
        assert "no numbers" in answer.why
    assert isinstance(written[1], Failure)
    assert "leaves no room" in written[1].why
