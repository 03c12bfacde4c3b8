"""A judge behind an OpenAI-compatible endpoint (paper §4.3): asked, retried, kept, estimated."""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pandas as pd
from tqdm import tqdm

from crane_lab.engines.judge_cache import Question, VerdictCache
from crane_lab.engines.judging import (
    COLUMNS,
    LOWEST,
    PROMPT,
    JudgeError,
    check_prompt,
    filled,
    read_reply,
    whole_characters,
)
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.secrets import refuse_secret
from crane_lab.store.sources import ROOT

if TYPE_CHECKING:
    from openai import OpenAI, OpenAIError
    from openai.types.chat import ChatCompletion

#: How often an answer is sent in all when replies cannot be read; each time with the next seed.
ASKS = 3
_OPENAI = "https://api.openai.com/v1"
BYTES_PER_TOKEN = 3
#: What endpoints answer with HTTP 400 because of one answer, not of the request as such.
_ABOUT_ONE_ANSWER = re.compile(
    "content_filter|content_policy_violation|context_length_exceeded|maximum context length"
)
_REFUSED = "refused"  # stands for a reply's finish_reason then


@dataclass(frozen=True)
class CostEstimate:
    """What judging some answers takes; see `LLMJudge.estimate`."""

    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.calls:,} calls to make ({self.cached:,} verdicts already kept): roughly "
            f"{self.prompt_tokens:,} tokens in, at most {self.completion_tokens:,} out"
        )


@dataclass(frozen=True)
class LLMJudge:
    """A judge behind an OpenAI-compatible endpoint. Nothing is sent before `score`.

    `endpoint` is the base URL, such as `http://localhost:8000/v1`; None means OpenAI's own
    (whatever OPENAI_BASE_URL says, since verdicts are kept by endpoint). The key is read from the
    environment variable `key_variable` when a call has to be made, and is kept nowhere.

    `retries` is how often one request is repeated after 408, 409, 429, 5xx, a lost connection or no
    reply within `timeout` seconds, with the openai client's back-off: 0.5 s doubling up to 8 s, or
    what Retry-After says. `seed` is sent along unless it is None. `cache` is a SQLite file where
    every verdict is kept with the judge's raw reply; it may serve several judges and processes.

    Raises ValueError for settings that cannot work and for anything that looks like a key.
    """

    model: str
    endpoint: str | None = None
    prompt: str = field(default=PROMPT, repr=False)
    cache: Path | str = ROOT / "runs" / "judge.sqlite"
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 4
    timeout: float = 60.0
    retries: int = 6
    max_tokens: int = 200
    temperature: float = 0.0
    seed: int | None = 0

    def __post_init__(self) -> None:
        for name in ("model", "endpoint", "prompt", "key_variable"):
            refuse_secret(name, getattr(self, name))
        if not self.model.strip():
            raise ValueError("model is empty; expected the name the endpoint knows it by")
        # Upper case only, and not repeated in the message: it may be the key itself.
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_variable):
            raise ValueError(
                "key_variable is the name of an environment variable in capitals, such as "
                "OPENAI_API_KEY, never the key"
            )
        if self.endpoint is not None:
            parts = urlsplit(self.endpoint)
            if parts.username or parts.password or parts.query:
                raise ValueError(
                    "an endpoint holds no name, password or query, since it is written into the "
                    "run; the key comes from the environment"
                )
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(
                    f"endpoint {self.endpoint!r} is no base URL such as http://localhost:8000/v1"
                )
        check_prompt(self.prompt)
        bounds = {"concurrency": 1, "retries": 0, "max_tokens": 1, "temperature": 0}
        for name, least in bounds.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout is a positive number of seconds, got {self.timeout}")

    @property
    def name(self) -> str:
        """`llm`."""
        return "llm"

    @property
    def base_url(self) -> str:
        """The endpoint that is asked, without a slash at the end."""
        return (self.endpoint or _OPENAI).rstrip("/")

    def fingerprint(self) -> dict[str, Any]:
        """Endpoint, model, prompt and generation parameters: what verdicts depend on."""
        return {
            "judge": self.name,
            "endpoint": self.base_url,
            "model": self.model,
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
        }

    def estimate(self, answers: pd.DataFrame) -> CostEstimate:
        """Say what `score(answers)` would take, without the network.

        Equal answers to equal questions count once, empty ones not at all. Tokens are a rough
        guess of one per 3 bytes of UTF-8, which is on the high side for English;
        `completion_tokens` is the bound `max_tokens` per call. Repetitions, after errors or
        unreadable replies, come on top. Raises like `score` for answers it cannot take.
        """
        questions, _ = self._questions(answers)
        known = VerdictCache(self.cache).read(list(questions))
        left = [question for key, question in questions.items() if key not in known]
        lengths = [len(self._prompt_for(question).encode()) for question in left]
        return CostEstimate(
            calls=len(left),
            cached=len(known),
            prompt_tokens=sum(math.ceil(length / BYTES_PER_TOKEN) for length in lengths),
            completion_tokens=len(left) * self.max_tokens,
        )

    def score(self, answers: pd.DataFrame) -> pd.DataFrame:
        """Return `answers` with `score`, `status` and the judge's `reason`; see `Judge.score`.

        - "scored": a reply was read (`read_reply`);
        - "unparsable": `ASKS` replies were not, or the endpoint refuses this one answer (content
          filter, length). The last raw reply is in the cache, and a warning counts them;
        - "empty": the answer has no characters but white space. It gets 1 without a call: there is
          nothing in it to help with, and the lowest grade must not depend on the judge's mood.

        Verdicts come out of the cache, so a rerun gives the same table without key or network.
        An answer whose retries are used up is left aside and the others go on, until as many in a
        row as there are concurrent calls (at least 2) have failed. Interrupted or failed, run it
        again: it continues with the missing answers. In-flight calls may end after an interrupt.

        Raises JudgeError if the key is missing or refused, the model unknown, the endpoint down or
        the cache unusable; ValueError or TypeError for a missing column or a text that is no text.
        """
        questions, keys = self._questions(answers)
        store = VerdictCache(self.cache)
        known = store.read(list(questions))
        pending = [question for key, question in questions.items() if key not in known]
        if pending:
            self._judge(pending, store, len(known))
            known = store.read(list(questions))
        empty = {"status": "empty", "score": LOWEST, "reason": "", "finish": None}
        verdicts: list[Mapping[str, Any]] = [empty if key is None else known[key] for key in keys]
        scored = answers.copy()
        scores = [math.nan if row["score"] is None else float(row["score"]) for row in verdicts]
        scored["score"] = pd.Series(scores, index=answers.index, dtype="float64")
        for name in ("status", "reason"):
            column = [row[name] for row in verdicts]
            scored[name] = pd.Series(column, index=answers.index, dtype="str")
        self._warn(scored, [row["finish"] for row in verdicts])
        return scored

    def _warn(self, scored: pd.DataFrame, finishes: list[str | None]) -> None:
        unparsable = scored["status"] == "unparsable"
        if not unparsable.any():
            return
        counts = scored.loc[unparsable, "language"].value_counts(sort=False)
        each = ", ".join(f"{count} {language}" for language, count in counts.items())
        text = (
            f"no verdict could be read for {unparsable.sum()} of {len(scored)} answers ({each}); "
            f"their score is NaN, and the judge's replies are in {self.cache}"
        )
        cut = sum(
            finish == "length" for finish, bad in zip(finishes, unparsable, strict=True) if bad
        )
        if cut:
            text += f". {cut} of these replies broke off at max_tokens={self.max_tokens}: raise it"
        warnings.warn(text, stacklevel=3)

    def _questions(self, answers: pd.DataFrame) -> tuple[dict[str, Question], list[str | None]]:
        """The distinct answers by key, and each row's key (None for an empty answer)."""
        missing = [name for name in COLUMNS if name not in answers]
        if missing:
            raise ValueError(
                f"answers need the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing"
            )
        settings = self.fingerprint()
        questions: dict[str, Question] = {}
        keys: list[str | None] = []
        for language, name, question, text in answers[list(COLUMNS)].itertuples(index=False):
            for column, value in (("language", language), ("question", question), ("text", text)):
                if not isinstance(value, str):
                    raise TypeError(f"answer {name!r}: {column} is no text but {value!r}")
                try:
                    value.encode()
                except UnicodeEncodeError as error:
                    raise ValueError(f"answer {name!r}: {column} is no Unicode: {error}") from error
            if not text.strip():
                keys.append(None)
                continue
            key = digest_of(canonical([settings, language, question, text]), 64)
            questions[key] = Question(key, language, question, text)
            keys.append(key)
        return questions, keys

    def _prompt_for(self, question: Question) -> str:
        return filled(self.prompt, question.question, question.answer, question.language)

    def _key(self, calls: int) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            what = "holds no usable key" if key else "is not set"
            raise JudgeError(
                f"{calls} answers are to be judged, and the environment variable "
                f"{self.key_variable} {what}. Put the endpoint's key there (any word, if it asks "
                "for none); the key is never a parameter, since parameters are written into the run"
            )
        return key

    def _judge(self, pending: list[Question], store: VerdictCache, before: int) -> None:
        """Judge what is pending; JudgeError unless all of it is in `store` afterwards."""
        session = _Session(self, self._key(len(pending)), store)
        failure = session.run(pending)
        if failure is None:
            return
        done = len(store.read([question.key for question in pending]))
        raise JudgeError(
            f"{failure.message}. {before + done} of {before + len(pending)} verdicts are done and "
            f"safe in {self.cache}, {len(pending) - done} are left; "
            f"{'once that is put right, ' if failure.fatal else ''}running it again continues there"
        )


class _Failure(NamedTuple):
    """Why there is no reply. Not an exception: openai's errors hold the request, and so the key."""

    message: str
    fatal: bool = False  # every other request would end the same way
    malformed: bool = False  # what came is no chat completion


class _Reply(NamedTuple):
    text: str
    finish: str | None
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Session:
    """The calls of one `LLMJudge.score`."""

    def __init__(self, judge: LLMJudge, key: str, store: VerdictCache) -> None:
        from openai import OpenAI

        self.judge, self.store, self._secret = judge, store, key
        self.judge_id = store.prepare(judge.fingerprint())
        self.client: OpenAI = OpenAI(
            api_key=key,
            base_url=judge.base_url,
            timeout=judge.timeout,
            max_retries=judge.retries,
        )
        self.json_mode = True
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._told: _Failure | None = None  # the last failure
        self._in_a_row = 0  # failures since a verdict

    def run(self, pending: list[Question]) -> _Failure | None:
        """Judge all of `pending`; return the failure to tell of, if any is left without verdict."""
        executor = ThreadPoolExecutor(self.judge.concurrency)
        bar = tqdm(total=len(pending), desc=f"judging with {self.judge.model}", unit="answer")
        try:
            with bar:
                # One goes ahead, so that a wrong key costs one call, not one per thread.
                bar.update(self._attempt(pending[0]))
                futures = [executor.submit(self._attempt, question) for question in pending[1:]]
                for future in as_completed(futures):
                    bar.update(future.result())
        except BaseException:  # Ctrl-C does not wait for calls in flight, which still are kept
            self.stop.set()
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        executor.shutdown()
        self.client.close()
        return self._told

    def _attempt(self, question: Question) -> bool:
        """Have one answer judged, if there is still a point in it; whether it has its verdict."""
        if self.stop.is_set():
            return False
        failure = self._one(question)
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if failure else 0
            self._told = failure or self._told
            if failure and (failure.fatal or self._in_a_row >= max(2, self.judge.concurrency)):
                self.stop.set()
        return failure is None

    def _one(self, question: Question) -> _Failure | None:
        """Have one answer judged and keep the verdict."""
        if self.store.read([question.key]):  # another process was faster
            return None
        prompt = self.judge._prompt_for(question)
        tokens_in = tokens_out = 0
        verdict = None
        for asked in range(1, ASKS + 1):
            reply = self._ask(prompt, asked - 1)
            if isinstance(reply, _Failure):
                if reply.malformed and asked < ASKS:
                    continue
                return reply
            tokens_in += reply.prompt_tokens
            tokens_out += reply.completion_tokens
            refused = reply.finish == _REFUSED
            verdict = None if refused else read_reply(reply.text)
            if verdict or refused:
                break
        assert isinstance(reply, _Reply)
        self.store.write(
            {
                "key": question.key,
                "judge": self.judge_id,
                "language": question.language,
                "question": question.question,
                "answer": question.answer,
                "status": "scored" if verdict else "unparsable",
                "score": verdict.score if verdict else None,
                "reason": verdict.reason if verdict else "",
                "reply": reply.text,
                "finish": reply.finish,
                "served_model": reply.model,
                "asked": asked,
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        return None

    def _ask(self, prompt: str, attempt: int) -> _Reply | _Failure:
        import openai

        judge = self.judge
        options: dict[str, Any] = {
            "model": judge.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": judge.max_tokens,
            "temperature": judge.temperature,
        }
        if judge.seed is not None:
            options["seed"] = judge.seed + attempt
        failure = _Failure("no request was made")
        for json_mode in (True, False) if self.json_mode else (False,):
            if json_mode:
                options["response_format"] = {"type": "json_object"}
            else:
                options.pop("response_format", None)
            try:
                reply = self._read(self.client.chat.completions.create(**options))
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if _ABOUT_ONE_ANSWER.search(error.message):
                    return _Reply(self._scrub(error.message), _REFUSED)
                failure = self._failure(error)
                continue  # endpoints that do not know response_format say so this way
            except openai.OpenAIError as error:
                return self._failure(error)
            except ValueError:  # the body is not JSON
                reply = None
            if reply is None:
                return _Failure(
                    f"what {judge.base_url} sends is no chat completion; the base URL of an "
                    "OpenAI-compatible endpoint usually ends in /v1",
                    malformed=True,
                )
            if not json_mode:
                self.json_mode = False
            return reply
        return failure

    def _read(self, completion: ChatCompletion) -> _Reply | None:
        """The first choice; None if there is none. The client does not check what it is sent."""
        try:
            choice, usage = completion.choices[0], completion.usage
            text = choice.message.content or choice.message.refusal or ""
            return _Reply(
                self._scrub(text),
                choice.finish_reason,
                completion.model,
                (usage.prompt_tokens if usage else 0) or 0,
                (usage.completion_tokens if usage else 0) or 0,
            )
        except (AttributeError, IndexError, TypeError):
            return None

    def _failure(self, error: OpenAIError) -> _Failure:
        import openai

        judge, fatal = self.judge, False
        if isinstance(error, openai.APITimeoutError):
            what = (
                f"{judge.base_url} gave no reply within {judge.timeout:g} s, "
                f"{judge.retries + 1} times"
            )
        elif isinstance(error, openai.APIConnectionError):
            what = f"{judge.base_url} cannot be reached ({error.__cause__ or error})"
        elif isinstance(error, openai.APIStatusError):
            status = error.status_code
            fatal = status < 500 and status not in (408, 409, 429)
            if status in (401, 403):
                what = f"{judge.base_url} refuses the key in {judge.key_variable}"
            elif status == 404:
                what = f"{judge.base_url} has no model {judge.model!r}, or no chat completions"
            elif fatal:
                what = f"{judge.base_url} rejects the request"
            else:
                what = f"{judge.base_url} keeps failing"
            what += f" ({self._scrub(error.message)[:300]})"
        else:
            what, fatal = f"the openai client failed ({type(error).__name__}: {error})", True
        return _Failure(self._scrub(what), fatal)

    def _scrub(self, text: str) -> str:
        """Take the key out of what comes from outside: some endpoints repeat it in their errors."""
        return whole_characters(text).replace(self._secret, "***")
