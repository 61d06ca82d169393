"""Make the model in the box: compose, train, quantise, write, check.

    python scripts/box-model/make.py                        everything, half an hour on two quiet cores
    python scripts/box-model/make.py --weights box.npz      keep the trained weights, or start from those kept

Writes `assets/box.gguf` and `assets/box.reference.json`. The recipe and its numbers are in `docs/box-model.md`.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np

from export import write_gguf
from reference import continue_greedily, mean_loss, read_weights, sample
from shape import Shape
from text import ASSISTANT, END, END_OF_TEXT, USER, compose
from train import Schedule, initial_weights, train
from vocabulary import Vocabulary, learn_vocabulary

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SEED = 42
HELD_OUT_SEED = 7
ROUNDS = (  # each on a text of its own, with a warm-up and a decay of its own
    Schedule(documents=32_000, steps=1500, long_steps=200, peak_rate=2e-3),
    Schedule(documents=22_000, steps=1000, long_steps=250, peak_rate=1e-3),
)
VOCABULARY_DOCUMENTS = 6_000
HELD_OUT_DOCUMENTS = 100
REFERENCE_TOKENS = 48
SMALLEST_MARGIN = 0.05
LARGEST_FILE = 4_000_000

PROMPTS = {  # name: prompt, as typed, control tokens included
    "story": "Once upon a time",
    "explanation": "The ocean is",
    "chat": f"{USER}\nWhat is a GPU?{END}\n{ASSISTANT}\n",
}
SHOWN = (
    *PROMPTS.values(),
    "Write a haiku about ocean waves",
    f"{USER}\nTell me a story about a rabbit.{END}\n{ASSISTANT}\n",
)


def trained_weights(vocabulary: Vocabulary, shape: Shape, keep: Path | None) -> dict[str, np.ndarray]:
    """The weights kept in a file where there is one, else trained ones, which are then kept there."""
    if keep and keep.exists():
        return dict(np.load(keep))
    weights = initial_weights(shape, SEED)
    for number, schedule in enumerate(ROUNDS):
        print(f"round {number + 1}, text of seed {SEED + number}", flush=True)
        texts = compose(SEED + number, schedule.documents)
        weights = train(weights, [vocabulary.encode(text) for text in texts], shape, schedule)
    trained = {name: np.asarray(matrix) for name, matrix in weights.items()}
    if keep:
        np.savez(keep, **trained)
    return trained


def write_reference(path: Path, model: Path, vocabulary: Vocabulary, shape: Shape) -> None:
    """Greedy continuations of the file's own weights, for the project's tests.

    Raises `ValueError` where a choice is nearly a tie: such a prompt would test rounding.
    """
    weights = read_weights(str(model))
    entries = []
    for name, prompt in PROMPTS.items():
        prompt_ids = vocabulary.encode(prompt)
        made = continue_greedily(weights, prompt_ids, REFERENCE_TOKENS, shape)
        smallest = min(made.margins)
        if smallest < SMALLEST_MARGIN:
            raise ValueError(f"prompt {name!r}: smallest margin {smallest:.3f}, at least {SMALLEST_MARGIN} wanted")
        entries.append({
            "name": name,
            "prompt": prompt,
            "prompt_ids": prompt_ids,
            "ids": made.ids,
            "text": vocabulary.decode(made.ids),
            "logits": [round(value, 6) for value in made.logits],
            "margins": [round(value, 6) for value in made.margins],
        })  # fmt: skip
    document = {
        "model": model.name,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "arithmetic": "numpy f64 on the dequantised weights, greedy",
        "prompts": entries,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def report(
    model: Path, vocabulary: Vocabulary, trained: dict[str, np.ndarray], held_out: list[str], shape: Shape
) -> None:
    """Prints what the documentation states: losses, margins, and what the model writes."""
    weights = read_weights(str(model))
    stops = {vocabulary.id_of(END_OF_TEXT), vocabulary.id_of(END)}
    documents = [vocabulary.encode(text) for text in held_out]
    before = mean_loss({name: w.astype(np.float64) for name, w in trained.items()}, documents, shape)
    print(f"held-out loss: {before:.4f} trained, {mean_loss(weights, documents, shape):.4f} quantised")
    print(f"size: {model.stat().st_size} bytes")
    for prompt in SHOWN:
        ids = vocabulary.encode(prompt)
        made = continue_greedily(weights, ids, 64, shape)
        spread = np.percentile(made.margins, [0, 5, 25, 50])
        print(f"\n{prompt!r}: margins over 64 tokens, minimum {spread[0]:.2f}, 5 % {spread[1]:.2f}, "
              f"quarter {spread[2]:.2f}, median {spread[3]:.2f}")  # fmt: skip
        print(f"  greedy: {vocabulary.decode(made.ids)!r}")
        print(f"  at 0.7: {vocabulary.decode(sample(weights, ids, 200, shape, 0.7, stops, SEED))!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write to (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="file of trained weights: read if there, else written (.npz)")
    arguments = parser.parse_args()
    started, shape = time.time(), Shape()
    vocabulary = learn_vocabulary(compose(SEED, VOCABULARY_DOCUMENTS), shape.vocabulary)
    trained = trained_weights(vocabulary, shape, arguments.weights)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = arguments.out / "box.gguf"
    write_gguf(str(model), trained, vocabulary, shape)
    if model.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{model} has {model.stat().st_size} bytes, {LARGEST_FILE} are allowed")
    report(model, vocabulary, trained, compose(HELD_OUT_SEED, HELD_OUT_DOCUMENTS), shape)
    write_reference(arguments.out / "box.reference.json", model, vocabulary, shape)
    print(f"\n{time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
