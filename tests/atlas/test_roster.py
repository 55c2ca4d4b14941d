"""Rosters: what is read, and what is refused in one sentence."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from aligntax.atlas.roster import Roster, read_roster
from aligntax.core.errors import InputError

GOOD = """
currency: EUR
models:
  base: {model: "api:https://host.example/v1#base", template: raw, stage: base, country: France, open: yes, year: 2024}
  sft:
    model: api:http://127.0.0.1:8000/v1#sft
    parent: base
    stage: sft
    price: {input: 0.5, output: 1.5}
    key_env: OTHER_API_KEY
    send: {provider: {order: [x], allow_fallbacks: false}, reasoning_effort: none, max_reasoning_tokens: 3, top_k: 5}
    answers_as: deployed-sft
  lab: {model: "lab:base", template: raw, parent: sft, country: }
"""
API = "api:http://127.0.0.1:8000/v1#m"


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def entry(**given: str) -> str:
    return "models:\n  m:\n" + "".join(f"    {key}: {value}\n" for key, value in {"model": API, **given}.items())


def test_a_roster(tmp_path: Path) -> None:
    found = read_roster(text(tmp_path / "roster.yaml", GOOD))
    assert list(found.models) == ["base", "sft", "lab"]
    assert found.currency == "EUR"
    sft = found.models["sft"]
    assert (sft.parent, sft.key_env, sft.answers_as, sft.concurrency, sft.timeout, sft.attempts) == (
        "base",
        "OTHER_API_KEY",
        "deployed-sft",
        8,
        120.0,
        6,
    )
    assert sft.price is not None
    assert (sft.price.input, sft.price.output) == (0.5, 1.5)
    assert sft.send["provider"]["allow_fallbacks"] is False
    assert (sft.reference.where, sft.reference.place, sft.reference.served) == ("api", "http://127.0.0.1:8000/v1", "sft")
    assert found.models["base"].facts == {"stage": "base", "country": "France", "open": "yes", "year": "2024"}
    assert found.models["lab"].facts == {}  # unknown is unknown
    assert found.groups() == {
        "stage": {"base": "base", "sft": "sft"}, "country": {"base": "France"}, "open": {"base": "yes"}, "year": {"base": "2024"},
        "parent": {"sft": "base", "lab": "sft"},
    }  # fmt: skip


SECRET = "sk-live-0123456789"
WRONG: dict[str, tuple[str, str]] = {
    "empty": ("", "is no roster: 'models:' is expected"),
    "a list": ("- a\n- b\n", "is no roster"),
    "no models": ("models:\n", "is no roster"),
    "none of them": ("models: {}\n", "models: Dictionary should have at least 1 item"),
    "models in a list": ("models: [a]\n", "is no roster"),
    "no yaml": ("models: {a: [}\n", "is no YAML that can be read"),
    "tags": ("models: !!python/object/apply:os.system [x]\n", "is no YAML that can be read"),
    "twice": (f"models:\n  m: {{model: '{API}'}}\n  m: {{model: '{API}'}}\n", "the key 'm' stands in line 2 and again in line 3"),
    "a number as name": (f"models:\n  4: {{model: '{API}'}}\n", "models: the name 4 is read as no text; write it in quotes"),
    "no as name": (f"models:\n  no: {{model: '{API}'}}\n", "models: the name False is read as no text"),
    "nameless": (f"models:\n  '': {{model: '{API}'}}\n", "a model's name has 1 to 100 characters that can be seen"),
    "blank": (f"models:\n  ' ': {{model: '{API}'}}\n", "a model's name has 1 to 100 characters"),
    "long name": (f"models:\n  {'x' * 101}: {{model: '{API}'}}\n", "a model's name has 1 to 100 characters"),
    "hidden": (f'models:\n  "a\\u202eb": {{model: "{API}"}}\n', "characters that can be seen"),
    "half a pair": (f'models:\n  "a\\ud800b": {{model: "{API}"}}\n', "can"),
    "no model": ("models:\n  m: {stage: base}\n", "models, m, model: Field required"),
    "a text for an entry": (f"models:\n  m: '{API}'\n", "models, m: "),
    "a list for a model": (entry(model="[a]"), "models, m, model: Input should be a valid string"),
    "unknown reference": (entry(model="no such model"), "models, m: no such model is no model"),
    "unknown embedded": (entry(model="lab:bass"), "models, m: no embedded model 'bass'; did you mean"),
    "a file": (entry(model="roster.yaml"), "models, m: "),
    "which model": (entry(model="api:http://127.0.0.1:8000/v1"), "does not say which model; write api:URL#model"),
    "no address": (entry(model="api:nowhere#m"), "no URL of an endpoint"),
    "password": (entry(model=f"api:https://me:{SECRET}@host/v1#m"), "holds a user or password"),
    "password with an option": (entry(model=f"api:https://me:{SECRET}@host/v1#m,foo=1"), "holds a user or password"),
    "key in the address": (entry(model=f"api:https://host/v1?key={SECRET}#m"), "has a part after ? or #"),
    "key as an option": (entry(model=f"api:https://host/v1#m,key={SECRET}"), "a key belongs into the environment variable"),
    "key": (entry(api_key=SECRET), "api_key: keys belong into the environment, named by key_env"),
    "bare key": (entry(key=SECRET), "key: keys belong into the environment"),
    "secret": (entry(client_secret=SECRET), "keys belong into the environment"),
    "token": (entry(access_token=SECRET), "keys belong into the environment"),
    "key for its name": (entry(key_env=SECRET), "never the key itself"),
    "another key for its name": (entry(key_env="gsk_abcdefghijklmnop"), "never the key itself"),
    "key that is sent": (entry(send=f"{{api_key: {SECRET}}}"), "send holds api_key: keys belong into the environment"),
    "key sent deep": (entry(send=f"{{extra: [{{headers: {{Authorization: {SECRET}}}}}]}}"), "send holds Authorization"),
    "unknown parent": (entry(parent="mother"), "m names the parent mother, which is not in the roster"),
    "own parent": (entry(parent="m"), "m is its own ancestor"),
    "loop": (f"models:\n  a: {{model: '{API}', parent: b}}\n  b: {{model: '{API}', parent: c}}\n  c: {{model: '{API}', parent: b}}\n", "is its own ancestor"),
    "template": (entry(template="chatml"), "models, m, template: Input should be 'chat' or 'raw'"),
    "concurrency": (entry(concurrency="0"), "models, m, concurrency: "),
    "attempts": (entry(attempts="many"), "models, m, attempts: "),
    "timeout": (entry(timeout=".nan"), "models, m, timeout: "),
    "endless": (entry(timeout=".inf"), "models, m, timeout: "),
    "price": (entry(price="{input: -1, output: 2}"), "models, m, price, input: "),
    "half a price": (entry(price="{input: 1}"), "models, m, price, output: Field required"),
    "other price": (entry(price="{input: 1, output: .inf}"), "models, m, price, output: "),
    "currency": ("currency: [EUR]\n" + entry(), "currency: "),
    "hidden currency": ('currency: "\\e[2J"\n' + entry(), "currency: "),
    "misspelt": (entry(concurency="3"), "concurency: did you mean concurrency?"),
    "misspelt template": (entry(templates="raw"), "templates: did you mean template?"),
    "the protocol's": (entry(temperature="0"), "temperature: the protocol sets it, for all models alike"),
    "sent": (entry(send="{temperature: 0}"), "send cannot set temperature: the protocol does"),
    "a stop": (entry(send="{stop: x}"), "send cannot set stop"),
    "no mapping": (entry(send="[a]"), "models, m, send: "),
    "a date that is sent": (entry(send="{day: 2024-01-01}"), "send holds what JSON cannot"),
    "nan that is sent": (entry(send="{top_p: .nan}"), "send holds what JSON cannot"),
    "half a pair that is sent": (entry(send='{x: "\\ud800"}'), "can"),
    "a list as a fact": (entry(country="[a, b]"), "country must be one text or number"),
    "nan as a fact": (entry(year=".nan"), "year must be one text or number"),
    "a date as a fact": (entry(released="2024-01-01"), "released must be one text or number"),
    "hidden fact": (entry(country='"\\e[2J"'), "country must be one text of at most 100 characters that can be seen"),
    "long fact": (entry(country="x" * 101), "country must be one text of at most 100 characters"),
    "many beasts": ("a: &a [x, x]\nb: &b [*a, *a]\nmodels: *b\n", "is no roster"),
    "other keys": ("model: x\n" + entry(), "model: Extra inputs are not permitted"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, why = WRONG[name]
    with pytest.raises(InputError) as raised:
        read_roster(text(tmp_path / "roster.yaml", content))
    said = str(raised.value)
    assert why in said
    assert "\n" not in said
    assert said.isprintable()
    assert len(said) < 700
    assert SECRET not in said
    assert "gsk_" not in said
    assert "roster.yaml" in said


def test_who_is_asked_over_http_and_facts_of_that_name(tmp_path: Path) -> None:
    found = read_roster(text(tmp_path / "roster.yaml", GOOD.replace("top_k: 5}", "top_k: 5}\n    remote: no")))
    assert [rater.remote for rater in found.models.values()] == [True, True, False]
    assert found.models["sft"].facts["remote"] == "no"


def test_a_long_line_of_ancestors_takes_no_time() -> None:
    count = 20_000
    line = {f"m{i}": {"model": API, "parent": f"m{i + 1}" if i + 1 < count else None} for i in range(count)}
    begun = time.process_time()
    assert len(Roster.model_validate({"models": line}).models) == count
    with pytest.raises(ValidationError, match="m0 is its own ancestor"):
        Roster.model_validate({"models": {**line, f"m{count - 1}": {"model": API, "parent": "m0"}}})
    assert time.process_time() - begun < 10  # going up from every one anew takes minutes
