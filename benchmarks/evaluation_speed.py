"""Processor seconds of ``engine: fast`` against stock lm-eval, on random Llamas and a real one.

    python -m benchmarks.evaluation_speed --questions FILE --counts 1000 200 --model DIRECTORY --model-count 50

Every engine scores every model once in this process, on one thread, in float32, with the batch size that is stock's
fastest on a processor. Random weights are as good as trained ones: the time does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mergeline.evaluation.questions.dataset_reference import parse_dataset
from mergeline.evaluation.questions.four_choice import Row, load_questions
from mergeline.evaluation.questions.lm_eval_task import find_lm_eval_task
from mergeline.evaluation.questions.lm_eval_tasks.spartqa_train.preprocess_spartqa import doc_to_text
from mergeline.evaluation.results import Evaluation, EvaluationSettings
from mergeline.evaluation.stored_evaluation import package_versions
from mergeline.evaluation.worker.fast_scoring import TokenizedPrompts
from mergeline.evaluation.worker.scoring import ModelRequest, score_model
from mergeline.evaluation.worker.task import TaskRequest, build_task

# hidden, layers, heads, key-value heads, intermediate; with the vocabulary of SmolLM2.
SHAPES = {"16 M": (256, 4, 4, 4, 768), "50 M": (512, 8, 8, 8, 1536)}
VOCABULARY = 49_152
TOLERANCE = 1e-5
"""How far apart log-probabilities may lie, in nats: batches of other shapes add in another order."""


def write_model(directory: Path, shape: tuple[int, int, int, int, int], texts: list[str]) -> int:
    """Write a random model and a byte-level tokenizer trained on the texts; return its number of parameters."""
    hidden, layers, heads, key_value_heads, intermediate = shape
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(directory)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    answers = [f"Answer: {letter}" for letter in "ABCD" for _ in range(100)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [*texts, *answers],
        trainers.BpeTrainer(
            vocab_size=4000, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
        ),
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|end|>"
    ).save_pretrained(directory)
    return sum(parameter.numel() for parameter in model.parameters())


def measure(name: str, directory: Path, rows: list[Row]) -> str:
    """Score a model with both engines; return the row of the table.

    Raises:
        SystemExit: the engines do not give the same answers, or log-probabilities further apart than 1e-5.
    """
    task = find_lm_eval_task("spartqa_train")
    request = TaskRequest(task.name, str(task.yaml_path), rows)
    built = build_task(request)
    stock = EvaluationSettings("spartqa_train", batch_size=8, dtype="float32")
    seconds: dict[str, float] = {}
    scored: dict[str, Evaluation] = {}
    for settings in (stock, replace(stock, engine="fast")):
        model = ModelRequest(name, directory, "")
        started = time.process_time()
        scored[settings.engine] = score_model(built, model, settings, package_versions(), request, TokenizedPrompts())
        seconds[settings.engine] = time.process_time() - started
    pairs = list(zip(scored["stock"].answers, scored["fast"].answers, strict=True))
    others = sum(a.prediction != b.prediction for a, b in pairs)
    distance = max(abs(x - y) for a, b in pairs for x, y in zip(a.log_probabilities, b.log_probabilities, strict=True))
    if others or distance > TOLERANCE or scored["fast"].n_fast != len(rows):
        raise SystemExit(f"{name}: {others} other answers, log-probabilities {distance:.1e} nats apart")
    return (
        f"| {len(rows):,} | {seconds['stock']:.1f} | {seconds['fast']:.1f} | {seconds['fast'] / seconds['stock']:.0%} "
        f"| {distance:.1e} | {scored['stock'].accuracy:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", default="directions", help="a file, or `directions` for made-up ones")
    parser.add_argument("--counts", type=int, nargs=2, default=[1000, 200], help="questions for each random model")
    parser.add_argument("--model", type=Path, help="a further model, e.g. one written by benchmarks.gguf_model")
    parser.add_argument("--model-count", type=int, default=50, help="questions for it")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    reference = parse_dataset(options.questions)
    every = reference.generate() if reference.is_generated else load_questions(Path(reference.name))
    print("| model | parameters | questions | stock, CPU s | fast, CPU s | fast/stock | furthest apart, nats | acc |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, shape), count in zip(SHAPES.items(), options.counts, strict=True):
        rows = every[:count]
        with tempfile.TemporaryDirectory() as directory:
            parameters = write_model(Path(directory), shape, [doc_to_text(row) for row in rows])
            print(f"| random Llama, {name} | {parameters:,} {measure(name, Path(directory), rows)}", flush=True)
    if options.model is not None:
        name = options.model.name
        model = transformers.AutoModelForCausalLM.from_pretrained(options.model)
        parameters = model.num_parameters()
        del model
        print(f"| {name} | {parameters:,} {measure(name, options.model, every[: options.model_count])}", flush=True)


if __name__ == "__main__":
    main()
