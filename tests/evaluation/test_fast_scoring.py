"""Fast scoring against stock lm-eval: the same answers, for less."""

import json
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mergeline.evaluation.compare import comparison
from mergeline.evaluation.evaluate_models import ModelToEvaluate, evaluate_models
from mergeline.evaluation.questions.four_choice import load_questions
from mergeline.evaluation.questions.lm_eval_task import find_lm_eval_task
from mergeline.evaluation.questions.lm_eval_tasks.spartqa_train.preprocess_spartqa import doc_to_text
from mergeline.evaluation.questions.task_questions import read_questions
from mergeline.evaluation.results import EvaluationSettings
from mergeline.evaluation.stored_evaluation import package_versions
from mergeline.evaluation.worker.fast_scoring import FastLanguageModel, TokenizedPrompts
from mergeline.evaluation.worker.scoring import ModelRequest, score_model
from mergeline.evaluation.worker.task import TaskRequest, build_task

compare = partial(comparison.compare, margin=0.02)

STOCK = EvaluationSettings(task="spartqa_train", batch_size=8)
FAST = replace(STOCK, engine="fast")


def write_tokenizer(directory, texts):
    """A byte-level BPE tokenizer, trained on the questions themselves and their answers."""
    texts = [*texts, *(f"Answer: {letter}" for letter in "ABCD" for _ in range(100))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    )
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|end|>")
    wrapped.save_pretrained(directory)


def write_model(directory, config, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    return directory


def llama(hidden, layers, vocabulary):
    return transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.04,
    )


@pytest.fixture
def score():
    """Score a model in this process, as the worker does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def score(directory, rows, settings, tokenized=None, task="spartqa_train", label="model"):
        lm_eval_task = find_lm_eval_task(task)
        request = TaskRequest(lm_eval_task.name, str(lm_eval_task.yaml_path), rows)
        model = ModelRequest(label, Path(directory), "digest")
        return score_model(
            build_task(request), model, settings, package_versions(), request, tokenized or TokenizedPrompts()
        )

    yield score
    torch.set_num_threads(threads)


def assert_same(stock, fast):
    assert [answer.prediction for answer in fast.answers] == [answer.prediction for answer in stock.answers]
    assert fast.accuracy == stock.accuracy
    assert fast.task_hash == stock.task_hash
    distances = [
        abs(ours - theirs)
        for mine, other in zip(fast.answers, stock.answers, strict=True)
        for ours, theirs in zip(mine.log_probabilities, other.log_probabilities, strict=True)
    ]
    # The output layer sees fewer rows than stock's, and may add in another order: float32 keeps six digits of
    # log-probabilities around -10.
    assert max(distances) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("label", ["base", "compass", "clock"])
def test_the_demonstration_models_give_the_same_answers_on_every_question(
    evaluated, demo_models, questions_file, score, label
):
    fast = score(demo_models / label, load_questions(questions_file), replace(FAST, batch_size=32))
    assert_same(evaluated[label], fast)
    assert (evaluated[label].n_fast, fast.n_fast) == (0, 1000)


@pytest.mark.slow
def test_the_real_questions_take_less_than_two_fifths_of_the_time(tmp_path, real_questions, score):
    """A 15.7 M parameter Llama with SmolLM's vocabulary of 49,152; processor seconds, scoring alone."""
    rows = load_questions(real_questions)[:100]
    directory = write_model(tmp_path / "model", llama(256, 4, 49_152))
    write_tokenizer(directory, [doc_to_text(row) for row in rows])
    score(directory, rows[:2], FAST)  # whatever is imported at first use
    seconds, evaluations = {}, {}
    for name, settings in (("fast", FAST), ("stock", STOCK)):
        started = time.process_time()
        evaluations[name] = score(directory, rows, settings)
        seconds[name] = time.process_time() - started
    assert_same(evaluations["stock"], evaluations["fast"])
    assert evaluations["fast"].n_fast == 100
    assert len({answer.prediction for answer in evaluations["fast"].answers}) > 1
    assert seconds["fast"] < 0.4 * seconds["stock"], seconds


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        transformers.GPT2Config(vocab_size=2000, n_embd=64, n_layer=2, n_head=4, n_positions=512),
        transformers.MistralConfig(
            vocab_size=2000, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=48, max_position_embeddings=512, tie_word_embeddings=False,
        ),
        transformers.Gemma2Config(
            vocab_size=2000, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, sliding_window=64, max_position_embeddings=512,
        ),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_other_architectures_give_the_same_answers(tmp_path, questions_file, score, config):
    rows = load_questions(questions_file)[:40]
    directory = write_model(tmp_path / "model", config)
    write_tokenizer(directory, [doc_to_text(row) for row in rows])
    stock, fast = score(directory, rows, STOCK), score(directory, rows, FAST)
    assert_same(stock, fast)
    assert fast.n_fast == 40


TWO_TOKENS = """\
task: mixed
dataset_path: none
output_type: multiple_choice
test_split: train
doc_to_text: "{{question}} The answer is"
doc_to_choice: "{{candidate_answers}}"
doc_to_target: "{{['A', 'B', 'C', 'D'].index(answer)}}"
metric_list:
  - metric: acc
metadata:
  version: 1.0
"""


@pytest.mark.slow
def test_questions_that_it_cannot_serve_go_to_stock_one_by_one(tmp_path, demo_models, questions_file, score):
    """Every other question has a choice of two words, hence two tokens."""
    rows = load_questions(questions_file)[:20]
    for row in rows[::2]:
        row["candidate_answers"] = ["left", "right", "above", "to below"]
    task = tmp_path / "mixed.yaml"
    task.write_text(TWO_TOKENS)
    stock, fast = (score(demo_models / "compass", rows, settings, task=str(task)) for settings in (STOCK, FAST))
    assert_same(stock, fast)
    assert fast.n_fast == 10


@pytest.mark.slow
def test_prompts_are_tokenized_once_for_models_that_share_a_tokenizer(demo_models, questions_file, score, monkeypatch):
    encoded = []
    encode = transformers.PreTrainedTokenizerFast.encode

    def counted(self, text, *arguments, **settings):
        encoded.append(text)
        return encode(self, text, *arguments, **settings)

    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "encode", counted)
    rows = load_questions(questions_file)[:50]
    tokenized = TokenizedPrompts()
    score(demo_models / "compass", rows, FAST, tokenized)
    # Each prompt once, and the first of them with each of the four letters.
    assert len([text for text in encoded if "Question" in text]) == 54
    encoded.clear()
    score(demo_models / "clock", rows, FAST, tokenized)
    assert [text for text in encoded if "Question" in text] == []


def test_a_model_that_ignores_which_positions_are_asked_for_goes_to_stock(demo_models):
    model = transformers.AutoModelForCausalLM.from_pretrained(demo_models / "compass")
    tokenizer = transformers.AutoTokenizer.from_pretrained(demo_models / "compass")
    plain = model.forward

    def forward(input_ids, logits_to_keep=0, **settings):
        return plain(input_ids, **settings)

    model.forward = forward
    fast = FastLanguageModel(pretrained=model, tokenizer=tokenizer, batch_size=2, tokenized=TokenizedPrompts())
    assert fast._last_position_scores([(("a", "b"), [1, 2, 3], [4])]) == []


@pytest.mark.slow
def test_the_scoring_is_part_of_the_cache_key(tmp_path, demo_models, questions_file):
    model = ModelToEvaluate("base", demo_models / "base")
    lines = []
    for engine in ("fast", "stock", "fast"):
        (evaluation,) = evaluate_models(
            [model],
            replace(STOCK, limit=20, engine=engine),
            read_questions("spartqa_train", questions_file, None),
            cache_dir=tmp_path,
            on_line=lines.append,
        )
        assert evaluation.n_fast == (20 if engine == "fast" else 0)
    assert len([line for line in lines if line.startswith("Evaluating")]) == 2
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["loaded_dtype"] == "float32"


@pytest.mark.slow
def test_the_same_evaluation_twice_is_the_same_and_another_prompt_is_not(tmp_path, demo_models, questions_file, score):
    rows = load_questions(questions_file)[:20]
    first, second = (score(demo_models / "compass", rows, STOCK) for _ in range(2))
    assert (first.task_hash, first.answers) == (second.task_hash, second.answers)
    shipped = find_lm_eval_task("spartqa_train").yaml_path
    task = Path(shutil.copytree(shipped.parent, tmp_path / "task")) / shipped.name
    prompt = task.with_name("preprocess_spartqa.py")
    prompt.write_text(prompt.read_text().replace("Answer:", "Reply:"))
    other = score(demo_models / "compass", rows, STOCK, task=str(task))
    assert other.task_hash != first.task_hash
    assert compare(other, [first])[0].reason == "other questions or prompts"
