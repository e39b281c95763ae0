"""lm-eval's own language model, faster where every choice is a single token; runs in the worker process.

Stock lm-eval computes the output layer and its softmax at every position of every prompt and tokenizes each prompt
eight times. Here each prompt is tokenized once for all models that share a tokenizer, and the output layer runs only
where a prompt ends. Batches are lm-eval's own, in order, size and padding: the same prompt in another batch is rounded
otherwise, by up to 3e-5 nats for a model of 135 M parameters in float32, and visibly in bfloat16.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lm_eval.models import huggingface
from torch import Tensor

# A decorator hides the class from type checkers.
_StockLanguageModel: Any = huggingface.HFLM

_Request = tuple[tuple[str, str], list[int], list[int]]
"""(prompt, choice) as text, the prompt's tokens, the choice's tokens."""

_Score = tuple[float, bool]
"""Log-probability of a choice in nats, and whether it is the likeliest token."""


@dataclass(frozen=True)
class _Tokens:
    """What one tokenizer made of the texts so far."""

    texts: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """Whole text -> its tokens."""
    choices: dict[tuple[str, str], int | None] = field(default_factory=dict[tuple[str, str], int | None])
    """(end of a prompt, choice) -> the choice's token; None: it is not a token of its own."""


class TokenizedPrompts:
    """Prompts as tokens, kept from one model to the next as long as the tokenizer is the same."""

    def __init__(self) -> None:
        self._by_tokenizer: dict[str, _Tokens] = {}

    def of(self, tokenizer: Any, adds_bos: object) -> _Tokens:
        """Return what is known for ``tokenizer``; one without a fast backend starts anew."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            return _Tokens()
        identity = f"{type(tokenizer).__name__} {adds_bos} {tokenizer.bos_token} {backend.to_str()}"
        return self._by_tokenizer.setdefault(hashlib.sha256(identity.encode()).hexdigest(), _Tokens())


class FastLanguageModel(_StockLanguageModel):
    """Scores single-token choices from the last position's logits; leaves every other question to stock lm-eval.

    Args:
        tokenized: Shared by the models that are evaluated one after another.
        kwargs: Given to lm-eval's ``HFLM``.
    """

    def __init__(self, *, tokenized: TokenizedPrompts, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tokens = tokenized.of(self.tokenizer, self.add_bos_token)
        self.served: set[int] = set()
        """lm-eval's ``doc_id`` of every question that was not left to stock lm-eval."""

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """Tokenize as lm-eval does, each text once."""
        if add_special_tokens is not None or left_truncate_len is not None or kwargs:
            return super().tok_encode(string, add_special_tokens, left_truncate_len, **kwargs)
        if string not in self._tokens.texts:
            self._tokens.texts[string] = super().tok_encode(string)
        return self._tokens.texts[string]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[_Score]:
        """Score each request's choice after its prompt, in the requests' order."""
        scores: dict[int, _Score] = {}
        by_question: dict[object, list[int]] = {}
        for number, request in enumerate(requests):
            by_question.setdefault((request.task_name, request.doc_id), []).append(number)
        fast: dict[int, _Request] = {}
        for numbers in by_question.values():
            tokenized = [self._tokenized(*requests[number].args) for number in numbers]
            served = [request for request in tokenized if request is not None]
            if len(served) == len(tokenized):
                fast |= dict(zip(numbers, served, strict=True))
        if fast and "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            scores = dict(zip(fast, self._last_position_scores(list(fast.values())), strict=False))
        self.served = {requests[number].doc_id for number in scores}
        left = [number for number in range(len(requests)) if number not in scores]
        if left:
            stock = super().loglikelihood([requests[number] for number in left], disable_tqdm=disable_tqdm)
            scores |= dict(zip(left, stock, strict=True))
        return [scores[number] for number in range(len(requests))]

    def _tokenized(self, prompt: str, choice: str) -> _Request | None:
        """Tokenize as lm-eval would; None where that gives no single token after a prompt that fits."""
        if not prompt or prompt != prompt.rstrip():
            return None
        # What follows a prompt is tokenized alike wherever its last line is the same: lm-eval's own way once for each.
        end = prompt.rpartition("\n")[2]
        if (end, choice) not in self._tokens.choices:
            _, continuation = self._encode_pair(prompt, choice)
            self._tokens.choices[end, choice] = continuation[0] if len(continuation) == 1 else None
        token = self._tokens.choices[end, choice]
        context = self.tok_encode(prompt)
        if token is None or not 0 < len(context) <= self.max_length:
            return None
        return (prompt, choice), context, [token]

    @torch.inference_mode()
    def _last_position_scores(self, requests: Sequence[_Request]) -> list[_Score]:
        """Score single-token choices; nothing where the model computes other positions than those asked for."""
        choices: dict[tuple[int, ...], list[int]] = {}
        for number, (_, context, _) in enumerate(requests):
            choices.setdefault(tuple(context), []).append(number)
        scores: dict[int, _Score] = {}
        # lm-eval's order, so that its batches are these.
        prompts = sorted(choices, key=lambda context: (-len(context), context))
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            logits = self._last_logits(batch)
            if logits is None:
                return []
            log_probabilities = torch.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
            likeliest: list[int] = log_probabilities.argmax(dim=-1).tolist()
            for row, context in enumerate(batch):
                tokens = [requests[number][2][0] for number in choices[context]]
                values: list[float] = log_probabilities[row, tokens].tolist()
                for number, token, value in zip(choices[context], tokens, values, strict=True):
                    scores[number] = (value, likeliest[row] == token)
        return [scores[number] for number in range(len(requests))]

    def _last_logits(self, batch: Sequence[tuple[int, ...]]) -> Tensor | None:
        """Return the logits after each prompt, [prompts, vocabulary]; the longest prompt comes first."""
        tokens = torch.zeros((len(batch), len(batch[0])), dtype=torch.long)
        for row, context in enumerate(batch):
            tokens[row, : len(context)] = torch.tensor(context)
        ends = sorted({len(context) - 1 for context in batch})
        positions = torch.tensor(ends, device=self.device)
        logits: Tensor = self.model(tokens.to(self.device), use_cache=False, logits_to_keep=positions).logits
        if logits.shape[1] != len(ends):
            return None
        columns = torch.tensor([ends.index(len(context) - 1) for context in batch], device=logits.device)
        return logits[torch.arange(len(batch), device=logits.device), columns]
