"""Runs lm-eval itself on two small random models and small local tasks; its own log files are what tests read.

python make_lm_eval_logs.py OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}

DOCS = [
    {
        "id": f"q{i}",
        "passage": f"p{i // 3}",
        "subject": ["sums", "words"][i % 2],
        "question": f"What is {i} plus {i + 1}?",
        "choices": [str(2 * i), str(2 * i + 1), str(2 * i + 2), "none"],
        "label": 1,
        "answer": str(2 * i + 1),
    }
    for i in range(24)
]

MULTIPLE_CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""

GENERATE = """
task: tiny_gen
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 12, do_sample: true, temperature: 1.0}}
filter_list:
  - name: strict-match
    filter:
      - {{function: regex, regex_pattern: "#### ([0-9]+)"}}
      - {{function: take_first}}
  - name: flexible-extract
    filter:
      - {{function: regex, group_select: -1, regex_pattern: "([0-9]+)"}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""

INSTRUCTIONS = """
task: tiny_instructions
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: ""
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 8, do_sample: true, temperature: 1.0}}
process_results: !function instructions.process_results
metric_list:
  - {{metric: prompt_level_strict_acc, aggregation: mean, higher_is_better: true}}
  - {{metric: inst_level_strict_acc, aggregation: !function instructions.flat_mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""

INSTRUCTIONS_PY = """
def process_results(doc, results):
    text = results[0]
    followed = [len(text) % 2 == 0, "1" in text, text.strip() != ""][: 1 + len(doc["question"]) % 3]
    return {"prompt_level_strict_acc": all(followed), "inst_level_strict_acc": followed}

def flat_mean(items):
    flat = [x for item in items for x in item]
    return sum(flat) / len(flat)
"""

ROLLING = """
task: tiny_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: bits_per_byte}}
metadata: {{version: 1.0}}
"""

GROUP = """
group: tiny_group
task: [tiny_sums, tiny_words]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
metadata: {version: 1.0}
"""


def write_tasks(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, docs in {"all": DOCS, "sums": DOCS[:14], "words": DOCS[14:]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(d) + "\n" for d in docs))
    data = {name: str(folder / f"{name}.jsonl") for name in ("all", "sums", "words")}
    (folder / "mc.yaml").write_text(MULTIPLE_CHOICE.format(name="tiny_mc", data=data["all"]))
    (folder / "sums.yaml").write_text(MULTIPLE_CHOICE.format(name="tiny_sums", data=data["sums"]))
    (folder / "words.yaml").write_text(MULTIPLE_CHOICE.format(name="tiny_words", data=data["words"]))
    (folder / "gen.yaml").write_text(GENERATE.format(data=data["all"]))
    (folder / "instructions.yaml").write_text(INSTRUCTIONS.format(data=data["all"]))
    (folder / "instructions.py").write_text(INSTRUCTIONS_PY)
    (folder / "rolling.yaml").write_text(ROLLING.format(data=data["all"]))
    (folder / "group.yaml").write_text(GROUP)


def tiny_model(folder: Path, seed: int) -> None:
    """A random two-layer Llama with a tokenizer of characters, saved as transformers saves models."""
    import string

    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    characters = [*string.printable, "<eos>", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>", pad_token="<eos>", bos_token="<eos>", model_max_length=256
    )
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(characters),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=100,
        eos_token_id=100,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def evaluate(model: Path, tasks: Path, out: Path, names: list[str], **options: object) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(out))
    found = simple_evaluate(
        model="hf", model_args={"pretrained": str(model)}, tasks=names, task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0, log_samples=True, device="cpu", batch_size=8, evaluation_tracker=tracker, **options,
    )  # fmt: skip
    samples = found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)


def main(out: Path) -> None:
    tasks = out / "tasks"
    write_tasks(tasks)
    names = ["tiny_mc", "tiny_gen", "tiny_instructions", "tiny_rolling", "tiny_group"]
    for seed, name in enumerate(("base", "candidate")):
        tiny_model(out / f"model-{name}", seed)
        evaluate(out / f"model-{name}", tasks, out / name, names)
    evaluate(out / "model-candidate", tasks, out / "candidate-chat", ["tiny_gen"], apply_chat_template=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
