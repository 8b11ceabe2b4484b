"""Requests that lm-eval makes of a model: whether its context has room for the answers, and how many are cut."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import DEFAULT_MAX_LENGTH, normalize_gen_kwargs, resolve_max_length
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from coolbits.artifacts.errors import CoolbitsError

_GENERATED = 256  # tokens, where a task does not say: those of lm-eval's models


def context_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the tokens of the context that a model of this config is given: lm-eval's, which does not know MPT's."""
    own: int | None = getattr(config, "max_seq_len", None)
    return own or resolve_max_length(config, tokenizer, default=DEFAULT_MAX_LENGTH)


def room_for_question(task: str, options: dict[str, Any], context: int) -> int:
    """Return how many tokens of a context are left for a question whose answer is generated with these options.

    Raises:
        CoolbitsError: if there are none.
    """
    generated = normalize_gen_kwargs(options, _GENERATED)["max_gen_toks"]
    if generated >= context:
        raise CoolbitsError(
            f"task {task}: max_gen_toks is {generated:,}, but the model's context is {context:,} tokens, one of which "
            f"at least is for the question, so that {context - 1:,} can be generated; leave the task out"
        )
    return context - generated


def demand_continuation_fits(task: str, tokens: int, context: int) -> None:
    """Refuse a continuation of so many tokens if a context is shorter.

    Raises:
        CoolbitsError: naming the task.
    """
    if tokens > context:
        raise CoolbitsError(
            f"task {task}: a continuation has {tokens} tokens, but the model's context is {context}; leave the task out"
        )


class Counting(HFLM):
    """A model as lm-eval asks it, which counts the requests of each task, and those that lm-eval cuts.

    Raises:
        CoolbitsError: as `room_for_question` and `demand_continuation_fits`, where only a request of a task tells.
    """

    def __init__(self, **options: Any) -> None:
        """Wrap a model; the options are lm-eval's."""
        super().__init__(**options)
        self.made: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self._names: list[str] = []
        self._lengths: list[int] = []

    @property
    def max_length(self) -> int:
        """The tokens of the model's context."""
        return context_length(self.config, self.tokenizer)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Answer as lm-eval does, and count."""
        self._names = [request.task_name for request in requests]
        answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm)
        # The last token is predicted, never read.
        self._count(requests, [length > self.max_length + 1 for length in self._lengths])
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Answer as lm-eval does, and count."""
        likelihoods: list[float] = super().loglikelihood_rolling(requests, disable_tqdm)
        self._count(requests, [False] * len(requests))  # scored in windows, whole
        return likelihoods

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer as lm-eval does, and count."""
        self._count(requests, [self._overflows(request) for request in requests])
        answers: list[str] = super().generate_until(requests, disable_tqdm)
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Any], *arguments: Any, **options: Any) -> Any:
        for name, (_, _, continuation) in zip(self._names, requests, strict=False):
            demand_continuation_fits(name, len(continuation), self.max_length)
        self._lengths = [len(context) + len(continuation) for _, context, continuation in requests]
        return super()._loglikelihood_tokens(requests, *arguments, **options)

    def _overflows(self, request: Instance) -> bool:
        """Whether a question is longer than what its answer leaves of the context."""
        question, options = request.args
        room = room_for_question(request.task_name, options, self.max_length)
        return len(self.tok_encode(question)) > room

    def _count(self, requests: Sequence[Instance], cut: Sequence[bool]) -> None:
        self.made.update(request.task_name for request in requests)
        self.cut.update(request.task_name for request, was in zip(requests, cut, strict=True) if was)
