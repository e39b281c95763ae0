"""A local model directory: checked for completeness and digested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mergeline.errors import EvaluationInputError
from mergeline.merge.manifest import MANIFEST_NAME
from mergeline.support.digests import digest, file_sha256

# Files that transformers may read; cards, licences and recipes change no answer.
_MODEL_SUFFIXES = {".safetensors", ".json", ".model", ".txt", ".jinja", ".tiktoken"}
# Every tokenizer that transformers loads without remote code has one of these.
_VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json",
                     "vocab.txt", "tekken.json")  # fmt: skip
_INDEX_NAME = "model.safetensors.index.json"


def model_digest(directory: Path) -> str:
    """Return the sha256, in hex, over a model's weights, config, tokenizer and template files.

    Reads every byte. The same weights in other shards count as another model.

    Raises:
        EvaluationInputError: ``directory`` holds no loadable model.
    """
    check_model_directory(directory)
    return digest({path.name: file_sha256(path) for path in _model_files(directory)})


def check_model_directory(directory: Path) -> None:
    """Raise :class:`EvaluationInputError` unless config, weights, every indexed shard and a tokenizer exist."""
    if not directory.is_dir():
        raise EvaluationInputError(f"{directory}: no such model directory.")
    if not (directory / "config.json").is_file():
        raise EvaluationInputError(f"{directory}: no config.json; expected a model directory as transformers saves it.")
    missing = sorted(name for name in _indexed_shards(directory) if not (directory / name).is_file())
    if missing:
        raise EvaluationInputError(
            f"{directory}: {_INDEX_NAME} names {missing[0]}, which is not there ({len(missing)} missing in all); "
            "finish the download or the merge first."
        )
    if not any(directory.glob("*.safetensors")):
        raise EvaluationInputError(f"{directory}: no *.safetensors weights; only safetensors models are evaluated.")
    if not any((directory / name).is_file() for name in _VOCABULARY_FILES) and not any(directory.glob("*.tiktoken")):
        raise EvaluationInputError(
            f"{directory}: no tokenizer (tokenizer.json, tokenizer.model or the like); copy that of a parent into it, "
            "or merge with a tokenizer_source."
        )


def _model_files(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix in _MODEL_SUFFIXES and path.name != MANIFEST_NAME and path.is_file()
    )


def _indexed_shards(directory: Path) -> set[str]:
    path = directory / _INDEX_NAME
    if not path.is_file():
        return set()
    try:
        index: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return set(index["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationInputError(f"{path}: not a weight map: {error!r}.") from None
