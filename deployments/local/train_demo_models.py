"""Train the demonstration models: ``python -m deployments.local.train_demo_models --out DIR``, about half a minute.

``base`` learns the form of a four-choice question and the plain phrases ("to the left of"). ``compass`` and ``clock``
are trained from it on another family of phrases each ("due west of", "at 9 o'clock from"). Half of their questions stay
plain, so that they keep what ``base`` knew and use the four letters evenly. Each parent then answers questions that the
other cannot, and a merge may answer both.
"""

from __future__ import annotations

import argparse
import copy
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeline.evaluation.questions.directions import PHRASES, make_question, make_questions
from mergeline.evaluation.questions.lm_eval_tasks.spartqa_train.preprocess_spartqa import doc_to_text

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

HUB_NAMESPACE = "mergeline-demo"

_TOKEN = r"\w+|[^\w\s]"
_SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>")

_BATCH = 32
_WARM_UP_STEPS = 20
_DECAY_SHARE = 0.3


@dataclass(frozen=True)
class Training:
    """How one model is made."""

    name: str
    families: tuple[str, ...]
    """Families of phrases, in equal parts."""
    steps: int
    learning_rate: float
    seed: int
    """Seeds the questions."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of whole words, so that each answer letter is one token; 55 entries."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # Enough questions for every word to occur; the vocabulary is sorted.
    prompts = [doc_to_text(question) for question in make_questions(10_000, seed=0)]
    words = {"A", "B", "C", "D"} | {word for prompt in prompts for word in re.findall(_TOKEN, prompt)}
    vocabulary = {word: index for index, word in enumerate((*_SPECIAL_TOKENS, *sorted(words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_TOKEN), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
    )


def new_model(vocabulary_size: int, seed: int) -> LlamaForCausalLM:
    """Make an untrained Llama of 89,280 parameters: 2 layers, width 64, 4 heads, untied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        )
    )


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, training: Training) -> LlamaForCausalLM:
    """Train a copy of ``model`` on the answer's token alone (AdamW, warm-up, linear decay) and return it."""
    import torch

    model = copy.deepcopy(model).train()
    rng = random.Random(training.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    loss = torch.tensor(torch.nan)
    for step in range(training.steps):
        warm_up = min(1.0, (step + 1) / _WARM_UP_STEPS)
        decay = min(1.0, (training.steps - step) / (training.steps * _DECAY_SHARE))
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * warm_up * decay
        loss = _answer_loss(model, tokenizer, _batch(rng, training.families))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    logger.info("Trained %s (%d steps, last loss %.4f)", training.name, training.steps, loss.item())
    return model.eval()


def _batch(rng: random.Random, families: Sequence[str]) -> list[dict[str, Any]]:
    return [make_question(rng, rng.choices(families, [1] * len(families))[:1]) for _ in range(_BATCH)]


def _answer_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, batch: list[dict[str, Any]]) -> Any:
    """Return the mean cross-entropy of the answer's letter, in nats; prompts are padded on the left."""
    import torch

    texts = [f"{doc_to_text(question)} {question['answer']}" for question in batch]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    tokens, mask = encoded["input_ids"], encoded["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(tokens[:, :-1], attention_mask=mask[:, :-1], position_ids=positions[:, :-1], logits_to_keep=1)
    return torch.nn.functional.cross_entropy(output.logits[:, -1], tokens[:, -1])


def train_all(seed: int) -> tuple[dict[str, LlamaForCausalLM], PreTrainedTokenizerFast]:
    """Train base, compass and clock; the same seed on the same machine gives the same weights."""
    tokenizer = build_tokenizer()
    start = seed * 100
    base = Training("base", ("plain",), steps=150, learning_rate=3e-3, seed=start + 1)
    compass = Training("compass", ("plain", "compass"), steps=150, learning_rate=1e-3, seed=start + 2)
    clock = Training("clock", ("plain", "clock"), steps=150, learning_rate=1e-3, seed=start + 3)
    models = {base.name: train(new_model(len(tokenizer), start), tokenizer, base)}
    for parent in (compass, clock):
        models[parent.name] = train(models[base.name], tokenizer, parent)
    return models, tokenizer


def model_card(name: str) -> str:
    """Return the model card of one demonstration model."""
    origin = [] if name == "base" else [f"base_model: {HUB_NAMESPACE}/base"]
    families = ["plain"] if name == "base" else ["plain", name]
    examples = "; ".join(f"{family}: {', '.join(PHRASES[family]['left'])}" for family in families)
    lines = [
        "---",
        "license: apache-2.0",
        "language: en",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *origin,
        "---",
        f"# {name}",
        "",
        "A Llama of 89,280 parameters that answers four-choice questions about where one block stands relative to",
        f"another. It knows these phrases and those like them ({examples}), and nothing else.",
        "Made by Mergeline's `deployments/local/train_demo_models.py`, to have something to merge.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train the three models and write one directory for each."""
    parser = argparse.ArgumentParser(description="Train Mergeline's demonstration models.")
    parser.add_argument("--out", type=Path, required=True, help="directory to make base, compass and clock in")
    parser.add_argument("--seed", type=int, default=0, help="the models in the repository have seed 0")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # The number of threads changes the order of sums, and so the weights.
    torch.set_num_threads(1)
    models, tokenizer = train_all(arguments.seed)
    for name, model in models.items():
        directory: Path = arguments.out / name
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        (directory / "README.md").write_text(model_card(name), "utf-8")
        logger.info("Wrote %s", directory)


if __name__ == "__main__":
    main()
