"""Diversity of 10,000 answers (1,000 prompts, ten each, 90 words), whole process; and self-BLEU beside sacrebleu's.

python benchmarks/diversity_speed.py [ANSWERS]
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from aligntax.stats.diversity import self_bleu, words_of

EACH = 10


def write(path: Path, answers: int, words: int, rng: random.Random) -> None:
    vocabulary = [f"word{i}" for i in range(3000)]
    with path.open("w") as file:
        for prompt in range(answers // EACH):
            topic = rng.sample(vocabulary, words)
            for trial in range(EACH):
                text = " ".join(rng.choices(topic, k=rng.randint(60, 120)))
                file.write(json.dumps({"item": f"q{prompt}", "trial": trial, "score": 1, "answer": text}) + "\n")


def timed(*command: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "aligntax", *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    answers = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        base, tuned = Path(folder) / "base.jsonl", Path(folder) / "tuned.jsonl"
        write(base, answers, 300, rng)
        write(tuned, answers, 40, rng)
        for what, more in (("none", ["--no-diversity"]), ("per prompt", []), ("per prompt and across prompts", ["--diversity"])):
            seconds = min(timed("diff", str(base), str(tuned), "--json", *more) for _ in range(3))
            print(f"diff of two arms with {answers:,} answers each, diversity {what}: {seconds:.1f} s")
        texts = [json.loads(line)["answer"] for line in base.read_text().splitlines()[:500]]
    begun = time.perf_counter()
    ours = self_bleu(words_of(texts), np.arange(len(texts)) // EACH, len(texts) // EACH)
    own = time.perf_counter() - begun
    from sacrebleu.metrics import BLEU

    bleu = BLEU(smooth_method="floor", smooth_value=0.1, effective_order=True, tokenize="none")
    begun = time.perf_counter()
    groups = [texts[k : k + EACH] for k in range(0, len(texts), EACH)]
    theirs = [np.mean([bleu.sentence_score(t.lower(), of[:i] + of[i + 1 :]).score / 100 for i, t in enumerate(of)]) for of in groups]
    peer = time.perf_counter() - begun
    print(
        f"self-BLEU of {len(texts)} answers: {own:.3f} s, sacrebleu {peer:.2f} s, {peer / own:.0f} times; largest difference {np.abs(ours - theirs).max():.1e}"
    )


if __name__ == "__main__":
    main()
