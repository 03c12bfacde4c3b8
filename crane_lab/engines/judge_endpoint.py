"""One request to an OpenAI-compatible endpoint and what can become of it.

Services differ in the parameters they take, in how they say no, and in how they say later. Here is
what they say, as a `Reply` or a `Failure`: nothing is raised, and no key gets out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from crane_lab.engines.judge_cache import REFUSED
from crane_lab.engines.judging import JudgeError, likely_base, one_line, whole_characters
from crane_lab.store.secrets import scrubbed

if TYPE_CHECKING:
    from openai import AsyncOpenAI

#: Bytes of a body and characters of a reply that are taken at most.
MOST_BYTES, MOST_CHARACTERS = 2**20, 20_000
#: Seconds: the first wait after an error and the longest, the longest after "too many requests",
#: and the longest that an endpoint may ask for.
FIRST_WAIT, LONGEST_WAIT, LONGEST_LIMIT_WAIT, LONGEST_ASKED = 0.5, 8.0, 60.0, 600.0
#: What endpoints refuse because of one answer, not of the request as such.
_ABOUT_ONE_ANSWER = re.compile(
    "content[_ ]filter|content[_ ]policy|content management policy|responsibleai|flagged|moderation"
    "|data_inspection_failed|context[_ ]length|maximum context|context window|prompt is too long"
    "|input token count|too many tokens|too long|request too large|reduce the length",
    re.IGNORECASE,
)
_PAYING = re.compile("credit|billing|quota|balance|insufficient", re.IGNORECASE)
#: How a message names a parameter that is sent.
_NAMED = {
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_completion_tokens",
    "temperature": "temperature",
    "seed": "seed|random_seed",
    "response_format": "response_format|response format|json_object|json_schema|json mode",
}
_SOME_PARAMETER = re.compile("support the provided parameters|handle the requested parameters")
#: A number of tokens that is taken, but not this one.
_OUT_OF_RANGE = re.compile("too (?:large|small)|at (?:most|least)|exceed|less than|greater|minimum")
_LATER = re.compile(
    r"(?:try again|retry)(?: again)? (?:in|after) ([\d.]{1,10}) ?(ms|milli|s\b|sec|m\b|min)?",
    re.IGNORECASE,
)
#: Words of an error within HTTP 200 that tell its status.
_WORDS = (
    (429, "rate.?limit|too many requests|resource.?exhausted|quota"),
    (401, "api.?key|unauthori[sz]ed|authentication"),
    (402, "insufficient|credit|billing"),
    (404, "model.?not.?found|not found|no such model"),
    (400, "invalid|unsupported|bad request"),
)


class Failure(NamedTuple):
    """Why there is no reply. Not an exception: openai's errors hold the request, and so the key."""

    message: str
    fatal: bool = False  # every other request would end the same way
    stopped: bool = False  # no request was made, since judging has ended
    rejected: bool = False  # this one request, after others were taken: the answer may be the cause


class Reply(NamedTuple):
    """What came: the judge's text as it is, and all else that is kept of it."""

    text: str
    finish: str | None
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    malformed: bool = False  # it is no chat completion; `text` is the body


@dataclass
class Manner:
    """What was learnt of an endpoint, for all calls of one judge.

    `left_out` names parameters that it rejects, and what is sent in their place ("" for nothing).
    """

    left_out: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)  # those that a warning has named
    next_start: float = 0.0  # on time.monotonic's clock: when the next call may start
    replies: int = 0
    languages: set[str] = field(default_factory=set)  # in which a reply could be read
    unreadable: set[str] = field(default_factory=set)  # keys that were asked in vain
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class _Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class _TooLong(Exception):
    """A body that is no judge's reply, whatever is in it."""


class _Bounded(httpx2.AsyncByteStream):
    """A body of at most so many bytes."""

    def __init__(self, stream: Any, most: int) -> None:
        self.stream, self.left = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self.stream:
            self.left -= len(part)
            if self.left < 0:
                raise _TooLong
            yield part

    async def aclose(self) -> None:
        await self.stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    # Nobody asked for compression, which would make much out of little.
    packed = "content-encoding" in response.headers
    response.stream = _Bounded(response.stream, MOST_BYTES // 32 if packed else MOST_BYTES)


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL, without its password."""
    parts = urlsplit(url)
    host, found = parts.hostname or "", getproxies()
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxy = found.get(parts.scheme) or found.get("all")
    return scrubbed(proxy) if proxy else None


class ChatEndpoint:
    """Calls to one endpoint. Any number of threads may `ask`; `close` when all are done.

    `parameters` are sent with every request as far as they are not None. Each call, from the
    look-up of the name to the last byte, takes at most `timeout` seconds and is repeated up to
    `retries` times. At most `per_minute` calls start in a minute. Setting `stop` ends all waiting.

    Raises JudgeError for a proxy in the environment that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        parameters: Mapping[str, Any],
        manner: Manner,
        *,
        timeout: float,
        retries: int,
        per_minute: float | None,
        key_variable: str,
    ) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        self.base_url, self.parameters, self.manner = base_url, parameters, manner
        self.timeout, self.retries, self.key_variable = timeout, retries, key_variable
        self.interval = 60.0 / per_minute if per_minute else 0.0
        self.stop = threading.Event()
        self._secret = key
        host = urlsplit(base_url).hostname or ""
        pattern = f"all://[{host}]" if ":" in host else f"all://{host}"
        try:
            http = DefaultAsyncHttpxClient(
                follow_redirects=False,  # answers and key go nowhere but where they are meant to
                event_hooks={"response": [_bound]},
                mounts={pattern: None} if _is_loopback(host) else None,  # None: never by a proxy
            )
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise JudgeError(
                f"the proxy {_proxy(base_url)} of this environment (http_proxy, https_proxy, "
                f"all_proxy) cannot be used: {one_line(scrubbed(str(error), [key]))}"
            ) from None
        self.client: AsyncOpenAI = AsyncOpenAI(
            api_key=key,
            base_url=base_url,
            timeout=timeout,
            max_retries=0,
            http_client=http,
            default_headers={"Accept-Encoding": "identity"},
        )
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def close(self) -> None:
        """End the connections; no call may be under way."""
        self._run(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)

    def scrub(self, text: str) -> str:
        """What comes from outside without the key, which some repeat, and not too long."""
        return scrubbed(whole_characters(text[:MOST_CHARACTERS]), [self._secret])

    def ask(self, prompt: str, attempt: int) -> Reply | Failure:
        """Send `prompt` with the seed moved by `attempt`; what came of it."""
        left_out, tries = dict(self.manner.left_out), 0
        replies = self.manner.replies
        while True:
            if not self._turn():
                return Failure("stopped", stopped=True)
            options = self._options(left_out, attempt)
            messages = [{"role": "user", "content": prompt}]
            came = self._run(self._once({"messages": messages, **options}))
            if isinstance(came, Reply):
                return came
            if isinstance(came, str):
                if tries >= self.retries:
                    return Failure(self.scrub(came))
                wait = min(FIRST_WAIT * 2**tries, LONGEST_WAIT)
            else:
                read = _read(came)
                if isinstance(read, Reply):
                    self._learn(left_out)
                    return read
                status, said = read
                if _ABOUT_ONE_ANSWER.search(said) and 400 <= status < 500 and status != 429:
                    return Reply(said, REFUSED[0])
                named = self._rejected(status, said, came.body, options)
                if named:
                    instead = "max_completion_tokens" if named == "max_tokens" else ""
                    origin = next((old for old, new in left_out.items() if new == named), named)
                    left_out[origin] = instead
                    continue
                asked = _wait_asked(came, said)
                if self.manner.replies > replies and status == 429:
                    tries, replies = 0, self.manner.replies  # it is slow, but it goes on
                passing = status >= 500 or status in (408, 409, 425, 429)
                passing = passing and not ("insufficient_quota" in said and asked is None)
                if not passing or tries >= self.retries or (asked or 0) > LONGEST_ASKED:
                    of_this = status in (400, 413, 422) and not _PAYING.search(said)
                    of_this = of_this and self.manner.replies > 0
                    why = self._why(status, said, asked, came)
                    return Failure(why, not (passing or of_this), rejected=of_this)
                if asked is None and status != 429:
                    wait = min(FIRST_WAIT * 2**tries, LONGEST_WAIT)
                else:  # all calls wait, not this one alone
                    wait = min(2.0**tries, LONGEST_LIMIT_WAIT) if asked is None else asked
                    with self.manner.lock:
                        later = time.monotonic() + wait
                        self.manner.next_start = max(self.manner.next_start, later)
            tries += 1
            if self.stop.wait(wait):
                return Failure("stopped", stopped=True)

    def _turn(self) -> bool:
        """Wait until a call may start; False if there is to be none."""
        with self.manner.lock:
            now = time.monotonic()
            start = max(now, self.manner.next_start)
            self.manner.next_start = start + self.interval if self.interval else start
        return not self.stop.wait(start - now) if start > now else not self.stop.is_set()

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()

    def _options(self, left_out: Mapping[str, str], attempt: int) -> dict[str, Any]:
        sent = {name: value for name, value in self.parameters.items() if value is not None}
        if "seed" in sent:
            sent["seed"] += attempt
        sent["response_format"] = {"type": "json_object"}
        for name, instead in left_out.items():
            value = sent.pop(name, None)
            if instead and value is not None:
                sent[instead] = value
        return sent

    def _learn(self, left_out: dict[str, str]) -> None:
        with self.manner.lock:
            self.manner.replies += 1
            self.manner.left_out.update(left_out)

    async def _once(self, options: Mapping[str, Any]) -> _Response | Reply | str:
        """One call: what came, or why nothing did."""
        import openai

        create = self.client.chat.completions.with_raw_response.create
        try:
            try:
                raw = await asyncio.wait_for(create(**options), self.timeout)
                response = raw.http_response
            except openai.APIStatusError as error:
                response = error.response
            return _Response(response.status_code, response.headers, response.content)
        except (TimeoutError, openai.APITimeoutError):
            said = f"{self.base_url} gave no reply within {self.timeout:g} s, "
            said += f"{self.retries + 1} times; a judge that thinks needs a longer judge_timeout"
        except _TooLong:
            return Reply(f"(a body of more than {MOST_BYTES:,} bytes)", None, malformed=True)
        except openai.APIConnectionError as error:
            said = f"{self.base_url} cannot be reached ({_innermost(error)})"
        except Exception as error:  # a header or body that no library reads
            return Reply(f"({type(error).__name__}: {error})", None, malformed=True)
        proxy = _proxy(self.base_url)
        return f"{said}, through the proxy {proxy} that the environment names" if proxy else said

    def _rejected(
        self, status: int, said: str, body: bytes, options: Mapping[str, Any]
    ) -> str | None:
        """The parameter that an error is about, if it may be left out."""
        if status not in (400, 404, 422, 500, 501):
            return None
        sent = [name for name in _NAMED if name in options]
        document = _document(body)
        error = document.get("error") if isinstance(document, dict) else None
        named = error.get("param") if isinstance(error, dict) else None
        places = {
            name: found.start()
            for name in sent
            if (found := re.search(rf"(?<![A-Za-z_])(?:{_NAMED[name]})(?![A-Za-z_])", said, re.I))
        }
        first = named if named in sent else min(places, key=lambda name: places[name], default=None)
        if first in ("max_tokens", "max_completion_tokens") and _OUT_OF_RANGE.search(said):
            return None
        if first is None and (status in (400, 422, 501) or _SOME_PARAMETER.search(said)):
            # Endpoints that do not know response_format may not name it.
            unnamed = ("response_format", "seed") if status == 404 else ("response_format",)
            first = next((name for name in unnamed if name in sent), None)
        return first

    def _why(self, status: int, said: str, asked: float | None, came: _Response) -> str:
        if status in (401, 403):
            what = f"{self.base_url} refuses the key in {self.key_variable}"
        elif status == 407:
            what = f"the proxy {_proxy(self.base_url)} wants a name and a password"
        elif status == 404:
            what = f"{self.base_url} has no model {self.parameters['model']!r}, or no chat "
            what += f"completions (its base URL may be {likely_base(self.base_url)})"
        elif status == 429:
            what = f"{self.base_url} is asked too often, or more than is paid for: set "
            what += "judge_requests_per_minute to its limit, or lower judge_concurrency or raise "
            what += "judge_retries"
            if asked is not None and asked > LONGEST_ASKED:
                what += f"; it asks to wait {asked:,.0f} s"
        elif 300 <= status < 400:
            to = urlsplit(self.scrub(came.headers.get("location", "")))
            what = f"{self.base_url} sends on to {to.scheme}://{to.netloc}{to.path}; give the base "
            what += "URL there"
        elif 400 <= status < 500 and status not in (408, 409, 425):
            what = f"{self.base_url} rejects the request"
            if "max_" in said and _OUT_OF_RANGE.search(said):
                what += ": set judge_max_tokens to what it takes"
        else:
            what = f"{self.base_url} keeps failing"
        return self.scrub(f"{what} (HTTP {status}: {one_line(self.scrub(said))})")


def _innermost(error: BaseException) -> str:
    """What the system says of a connection; the libraries around it say less."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _read(came: _Response) -> Reply | tuple[int, str]:
    """A reply, or the status and the words of an error. Nothing is expected of what is sent."""
    document = _document(came.body)
    if came.status != 200:
        return came.status, _words(document, came.body)
    if not isinstance(document, dict):
        return _malformed(came.body)
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    for holder in (choice, document):
        error = holder.get("error") if isinstance(holder, dict) else None
        if error or (holder is document and not choice and document.get("object") == "error"):
            said = _words(document if error is None else {"error": error}, came.body)
            code = error.get("code") if isinstance(error, dict) else document.get("code")
            if isinstance(code, int) and 400 <= code < 600:
                return code, said
            found = f"{code} {said}"
            return next((s for s, words in _WORDS if re.search(words, found, re.I)), 500), said
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return _malformed(came.body)
    usage = document.get("usage")
    finish, model = choice.get("finish_reason"), document.get("model")
    return Reply(
        _content(message),
        finish if isinstance(finish, str) else None,
        model if isinstance(model, str) else None,
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
    )


def _count(usage: Any, name: str) -> int:
    number = usage.get(name) if isinstance(usage, dict) else None
    return number if isinstance(number, int) and 0 <= number < 2**31 else 0


def _malformed(body: bytes) -> Reply:
    return Reply(body[:MOST_CHARACTERS].decode("utf-8", "replace"), None, malformed=True)


def _content(message: Mapping[str, Any]) -> str:
    """A message's text; of content in parts those that are text. Thoughts lie elsewhere."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        said = [part.get("text") for part in parts if part.get("type") in ("text", "output_text")]
        content = "".join(text for text in said if isinstance(text, str))
    if isinstance(content, str) and content:
        return content
    refusal = message.get("refusal")
    return refusal if isinstance(refusal, str) else ""


def _words(document: Any, body: bytes) -> str:
    """What an error says, in whichever of the usual places, with its code."""
    if isinstance(document, list) and document:  # as Gemini does
        document = document[0]
    if not isinstance(document, dict):
        return body[:MOST_CHARACTERS].decode("utf-8", "replace") or "no words"
    error = document.get("error") or document.get("detail") or document.get("message") or document
    if not isinstance(error, dict):
        return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    message = error.get("message")
    if not isinstance(message, str):
        return json.dumps(error, ensure_ascii=False)[:MOST_CHARACTERS]
    more = {str(error[name]) for name in ("code", "type") if error.get(name)}
    inner = error.get("metadata")  # OpenRouter's: what the provider behind it said
    if isinstance(inner, dict) and isinstance(inner.get("raw"), str):
        more.add(inner["raw"])
    return " ".join([message, *(f"[{word}]" for word in sorted(more) if word not in message)])


def _wait_asked(came: _Response, said: str) -> float | None:
    """Seconds that an endpoint asks to wait, in a header or in words; None if it does not."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = came.headers.get(name, "")
        try:
            seconds = float(value) / unit
        except ValueError:
            try:
                date = parsedate_to_datetime(value)
                seconds = (
                    date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)
                ).total_seconds()
            except (ValueError, TypeError, OverflowError):
                continue
        if seconds == seconds:  # not NaN
            return max(seconds, 0.0)
    if found := _LATER.search(said):
        try:
            of = (found[2] or "s").lower()
            factor = 1e-3 if of.startswith(("ms", "milli")) else 60.0 if of[0] == "m" else 1.0
            return float(found[1]) * factor
        except ValueError:
            return None
    return None
