"""A judge behind an OpenAI-compatible endpoint (paper §4.3): asked, retried, kept, estimated."""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from crane_lab.engines.judge_cache import REFUSED, Question, VerdictCache
from crane_lab.engines.judge_endpoint import ChatEndpoint, Failure, Manner, Reply
from crane_lab.engines.judging import (
    COLUMNS,
    LOWEST,
    PROMPT,
    JudgeError,
    check_answers,
    check_endpoint,
    check_prompt,
    filled,
    likely_base,
    one_line,
    read_reply,
)
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.secrets import refuse_secret
from crane_lab.store.sources import ROOT
from crane_lab.texts.languages import NAMES

#: How often an answer is sent in all when replies cannot be read; each time with the next seed.
ASKS = 3
#: Answers in a language without a single reply that can be read, after which judging stops.
FIRST = 3
#: What a judge is tried out on.
_TRIAL = ("en", "trial", "What is the capital of France?", "The capital of France is Paris.")
_OPENAI = "https://api.openai.com/v1"
BYTES_PER_TOKEN = 3


@dataclass(frozen=True)
class CostEstimate:
    """What judging some answers takes; see `LLMJudge.estimate`."""

    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int | None

    def __str__(self) -> str:
        return (
            f"{self.calls:,} calls to make ({self.cached:,} verdicts already kept): roughly "
            f"{self.prompt_tokens:,} tokens in, "
            + ("any number" if (most := self.completion_tokens) is None else f"at most {most:,}")
            + " out"
        )


@dataclass(frozen=True)
class LLMJudge:
    """A judge behind an OpenAI-compatible endpoint. Nothing is sent before `score`.

    `endpoint` is the base URL, such as `http://localhost:8000/v1`; None means OpenAI's own
    (whatever OPENAI_BASE_URL says, since verdicts are kept by endpoint). The key is read from the
    environment variable `key_variable` when a call has to be made, and is kept nowhere.

    `timeout` bounds a call from beginning to end. `retries` is how often one is repeated after 408,
    409, 429, 5xx, a lost connection or no reply in time: after what Retry-After says, else 0.5 s
    doubling up to 8 s (for 429 1 s doubling up to 60 s, and it counts only as long as no other call
    gets through). `requests_per_minute` bounds the calls that are started; None: no bound.

    `max_tokens`, `temperature` and `seed` are sent unless they are None. One that the endpoint
    rejects is left out (max_tokens becomes max_completion_tokens) with a warning, and each verdict
    is kept with what was sent. `cache` is a SQLite file where every verdict is kept with the
    judge's raw reply; it may serve several judges and processes.

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
    max_tokens: int | None = 200
    temperature: float | None = 0.0
    seed: int | None = 0
    requests_per_minute: float | None = None
    _manner: Manner = field(default_factory=Manner, init=False, repr=False, compare=False)

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
            check_endpoint(self.endpoint)
        check_prompt(self.prompt)
        bounds = {"concurrency": 1, "retries": 0, "max_tokens": 1, "temperature": 0}
        for name, least in bounds.items():
            value = getattr(self, name)
            if value is None and name in ("max_tokens", "temperature"):
                continue
            if not least <= value < math.inf:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout is a positive number of seconds, got {self.timeout}")
        if self.requests_per_minute is not None and not 0 < self.requests_per_minute < math.inf:
            raise ValueError(
                "requests_per_minute is a positive number, or None for no bound; got "
                f"{self.requests_per_minute}"
            )

    @property
    def name(self) -> str:
        """`llm`."""
        return "llm"

    @property
    def subscores(self) -> tuple[str, ...]:
        """None: a verdict is one grade."""
        return ()

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
        `completion_tokens` is the bound `max_tokens` per call (None without one). Repetitions,
        after errors or unreadable replies, come on top. Raises like `score` for answers it cannot
        take.
        """
        questions, _ = self._questions(answers)
        known = VerdictCache(self.cache).read(list(questions)).settled()
        left = [question for key, question in questions.items() if key not in known]
        lengths = [len(self._prompt_for(question).encode()) for question in left]
        return CostEstimate(
            calls=len(left),
            cached=len(known),
            prompt_tokens=sum(math.ceil(length / BYTES_PER_TOKEN) for length in lengths),
            completion_tokens=None if self.max_tokens is None else len(left) * self.max_tokens,
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
        found = store.read(list(questions))
        if found.damaged:
            warnings.warn(
                f"{found.damaged} verdicts in {self.cache} are damaged (their checksums do not "
                "fit); they are asked for again",
                stacklevel=2,
            )
        known = found.settled()
        self._manner.languages |= {
            questions[key].language for key, row in known.items() if row["status"] == "scored"
        }
        # What could not be read is asked for again by a rerun, but only once by one judge.
        vain = self._manner.unreadable & found.verdicts.keys()
        pending = [q for key, q in questions.items() if key not in known and key not in vain]
        if pending:
            self._judge(pending, store, len(questions) - len(pending))
        known = store.read(list(questions)).verdicts
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

    def try_out(self) -> None:
        """Have one made-up answer graded, before hours are spent on answers.

        It costs one call once: the verdict is kept. Raises as `score`, and JudgeError for replies
        that cannot be read.
        """
        trial = pd.DataFrame([_TRIAL], columns=list(COLUMNS))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no verdict could be read")
            status = self.score(trial)["status"].item()
        if status != "scored":
            (row,) = (
                VerdictCache(self.cache).read(list(self._questions(trial)[0])).verdicts.values()
            )
            cut = row["finish"] == "length"
            raise JudgeError(
                f"{self.model} was tried out on one made-up answer, and its reply cannot be read "
                f"as a grade: {one_line(row['reply'])!r}"
                + (f". It ends at judge_max_tokens ({self.max_tokens}): raise it" if cut else "")
                + '. A reply is one JSON object, such as {"reason": "short", "score": 7}: see that '
                "judge_prompt asks for it. Nothing has been generated for it yet"
            )

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
            text += f". {cut} of these replies broke off at max_tokens={self.max_tokens}: raise it "
            text += "(parameter judge_max_tokens)"
        warnings.warn(text, stacklevel=3)

    def _questions(self, answers: pd.DataFrame) -> tuple[dict[str, Question], list[str | None]]:
        """The distinct answers by key, and each row's key (None for an empty answer)."""
        check_answers(answers)
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

    def _endpoint(self, key: str) -> ChatEndpoint:
        sent = ("model", "max_tokens", "temperature", "seed")
        return ChatEndpoint(
            self.base_url,
            key,
            {name: getattr(self, name) for name in sent},
            self._manner,
            timeout=self.timeout,
            retries=self.retries,
            per_minute=self.requests_per_minute,
            key_variable=self.key_variable,
        )

    def _judge(self, pending: list[Question], store: VerdictCache, before: int) -> None:
        """Judge what is pending; JudgeError unless all of it is in `store` afterwards."""
        session = _Session(self, self._key(len(pending)), store)
        failure = session.run(pending)
        if failure is None:
            return
        done = len(store.read([question.key for question in pending]).settled())
        raise JudgeError(
            f"{failure.message}. {before + done} of {before + len(pending)} verdicts are done and "
            f"safe in {self.cache}, {len(pending) - done} are left; "
            f"{'once that is put right, ' if failure.fatal else ''}running it again continues there"
        )


class _Session:
    """The calls of one `LLMJudge.score`."""

    def __init__(self, judge: LLMJudge, key: str, store: VerdictCache) -> None:
        self.judge, self.store = judge, store
        self.judge_id = store.prepare(judge.fingerprint())
        self.endpoint = judge._endpoint(key)
        self.stop = self.endpoint.stop
        self._lock = threading.Lock()
        self._told: Failure | None = None  # the last failure
        self._in_a_row = 0  # failures since a verdict

    def run(self, pending: list[Question]) -> Failure | None:
        """Judge all of `pending`; return the failure to tell of, if any is left without verdict."""
        executor = ThreadPoolExecutor(self.judge.concurrency)
        bar = tqdm(total=len(pending), desc=f"judging with {self.judge.model}", unit="answer")
        try:
            with bar:
                tried = self._try_out(pending, executor, bar)
                self._warn_left_out()
                rest = [question for question in pending if question.key not in tried]
                futures = [executor.submit(self._attempt, question) for question in rest]
                for future in as_completed(futures):
                    bar.update(future.result() is not None)
        except BaseException:  # Ctrl-C does not wait for calls in flight, which still are kept
            self.stop.set()
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        executor.shutdown()
        self.endpoint.close()
        self._warn_left_out()
        return self._told

    def _try_out(self, pending: list[Question], executor: Executor, bar: tqdm[Any]) -> set[str]:
        """Have one answer in each language judged before the others, and return what was asked.

        So a wrong key costs one call, and a prompt whose replies cannot be read those of `FIRST`
        answers: the judge may stumble over one.
        """
        manner, asked = self.judge._manner, set()
        for language in dict.fromkeys(question.language for question in pending):
            here = [question for question in pending if question.language == language]
            for number, question in enumerate(here, 1):
                if language in manner.languages or number > FIRST or self.stop.is_set():
                    break
                asked.add(question.key)
                reply = executor.submit(self._attempt, question).result()
                if reply is None:  # no call was made, or it failed: nothing to learn from
                    break
                bar.update()
                unread = language not in manner.languages and reply.finish not in REFUSED
                if unread and number == FIRST < len(here):
                    self._give_up(reply, NAMES.get(language, language))
        return asked

    def _give_up(self, reply: Reply, language: str) -> None:
        shown, base = one_line(self.endpoint.scrub(reply.text)), self.judge.base_url
        if reply.malformed:
            what = f"what {base} sends is no chat completion but {shown!r}; the base URL of an "
            what += f"OpenAI-compatible endpoint usually ends in /v1 ({likely_base(base)})"
        else:
            what = f"not one of the first {FIRST} answers in {language} got a reply that can be "
            what += f"read as a grade, the last one being {shown!r}, and the others are not asked "
            what += 'for. A reply is one JSON object, such as {"reason": "short", "score": 7}: see '
            what += "that judge_prompt asks for it"
            if reply.finish == "length":
                what += f", and raise judge_max_tokens ({self.judge.max_tokens}), at which it ends"
        self._told = Failure(what, fatal=True)
        self.stop.set()

    def _warn_left_out(self) -> None:
        manner = self.judge._manner
        with manner.lock:
            new = {name: to for name, to in manner.left_out.items() if name not in manner.told}
            manner.told |= new.keys()
        if new:
            each = [f"{name} (sent as {to})" if to else name for name, to in sorted(new.items())]
            warnings.warn(
                f"{self.judge.base_url} does not take {', '.join(each)} for {self.judge.model}: "
                "what is not sent has the service's own default. Every verdict is kept with what "
                "was sent; to leave a parameter out yourself, set judge_<parameter> to None",
                stacklevel=5,
            )

    def _attempt(self, question: Question) -> Reply | None:
        """Have one answer judged, if there is still a point in it; the reply, if one came."""
        if self.stop.is_set():
            return None
        came = self._one(question)
        failure = came if isinstance(came, Failure) else None
        if failure and failure.stopped:
            return None
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if failure else 0
            too_many = self._in_a_row >= max(2, self.judge.concurrency)
            if failure and (too_many or not failure.rejected):
                self._told = failure
            if failure and (failure.fatal or too_many):
                self.stop.set()
        return None if isinstance(came, Failure) else came

    def _one(self, question: Question) -> Reply | Failure:
        """Have one answer judged and keep the verdict."""
        known = self.store.read([question.key])
        if known.settled():  # another process was faster
            return Reply("", REFUSED[0])
        judge, scrub = self.judge, self.endpoint.scrub
        before = known.verdicts.get(question.key, {}).get("asked", 0)
        prompt = judge._prompt_for(question)
        tokens_in = tokens_out = 0
        verdict = rejected = None
        for asked in range(before + 1, before + ASKS + 1):
            came = self.endpoint.ask(prompt, asked - 1)
            if isinstance(came, Failure):
                if not came.rejected:
                    return came
                rejected, reply = came, Reply(came.message, "rejected")
                break
            reply = came
            tokens_in += reply.prompt_tokens
            tokens_out += reply.completion_tokens
            verdict = None if reply.malformed else read_reply(reply.text)
            if verdict or reply.finish in REFUSED:
                break
        if verdict:
            judge._manner.languages.add(question.language)
        else:
            judge._manner.unreadable.add(question.key)
        self.store.write(
            {
                "key": question.key,
                "judge": self._sent_as(),
                "language": question.language,
                "question": question.question,
                "answer": question.answer,
                "status": "scored" if verdict else "unparsable",
                "score": verdict.score if verdict else None,
                "reason": scrub(verdict.reason) if verdict else "",
                "reply": scrub(reply.text),
                "finish": scrub(reply.finish)[:100] if reply.finish else None,
                "served_model": scrub(reply.model)[:200] if reply.model else None,
                "asked": asked,
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        return rejected or reply

    def _sent_as(self) -> str:
        """The judge's id; another one if the endpoint does not take all that was to be sent."""
        left_out = dict(self.judge._manner.left_out)
        if not left_out:
            return self.judge_id
        return self.store.register({**self.judge.fingerprint(), "left_out": left_out})
