"""Services that differ: what they reject, how they say later, what they send that is nothing."""

import base64
import gzip
import json
import random
import shutil
import socket
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from made_up_answers import make_answers
from test_llm_judge import KEY, Endpoint, Response, by_number, endpoint, graded, make

from crane_lab.engines.judge_endpoint import MOST_BYTES
from crane_lab.engines.judging import JudgeError, read_reply
from crane_lab.engines.llm_judge import ASKS, FIRST, LLMJudge

__all__ = ["endpoint", "make"]  # fixtures

Make = Callable[..., LLMJudge]
FINE = '{"reason": "fine", "score": 7}'


def body(message: Any = None, **more: Any) -> Response:
    """HTTP 200 with a completion of one choice, or of whatever `more` says."""
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Response(raw=json.dumps({"model": "m", "choices": [choice], **more}).encode())


# -------------------------------------------------------------------- parameters that are rejected


def rejecting(words: str, *names: str, status: int = 400) -> Callable[..., Response]:
    def behave(number: int, asked: dict[str, Any]) -> Response:
        if any(name in asked for name in names):
            return Response(words, status=status)
        return graded(number, asked)

    return behave


@pytest.mark.parametrize(
    ("words", "name", "status"),
    [
        (
            "Unsupported value: 'temperature' does not support 0 with this model.",
            "temperature",
            400,
        ),
        ("`temperature` is deprecated for this model.", "temperature", 400),
        ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "seed", 400),
        ("body.seed: extra_forbidden, Extra inputs are not permitted", "seed", 422),
        ("property 'seed' is unsupported, did you mean 'stop'?", "seed", 400),
        ("'response_format.type' must be 'json_schema' or 'text'", "response_format", 400),
        ("JSON mode is not enabled for this model", "response_format", 400),
        ("something is wrong", "response_format", 422),
        ("response_format is not implemented", "response_format", 501),
        ("No endpoints found that support the provided parameters", "response_format", 404),
    ],
)
def test_a_rejected_parameter_is_left_out_with_one_warning(
    endpoint: Endpoint, make: Make, words: str, name: str, status: int
) -> None:
    endpoint.behave = rejecting(words, name, status=status)
    judge, answers = make(seed=3), make_answers(9).assign(language="en")
    with pytest.warns(UserWarning, match=f"does not take {name} for tiny") as said:
        assert list(judge.score(answers[:6])["score"]) == [1, 2, 3, 4, 5, 6]
    assert len(said) == 1
    assert [name in asked for asked in endpoint.bodies] == [True] + [False] * 6
    others = {"temperature", "seed", "response_format", "max_tokens"} - {name}
    assert all(others <= asked.keys() for asked in endpoint.bodies)
    with sqlite3.connect(judge.cache) as file:
        sent = file.execute(
            "SELECT DISTINCT settings FROM verdicts JOIN judges USING (judge)"
        ).fetchall()
    assert [json.loads(text)["left_out"] for (text,) in sent] == [{name: ""}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge.score(answers)  # what was learnt stays learnt
        assert list(make(seed=3).score(answers)["score"]) == list(range(1, 10))
    assert len(endpoint.bodies) == 10


def test_reasoning_models_are_asked_in_their_way(endpoint: Endpoint, make: Make) -> None:
    def behave(number: int, asked: dict[str, Any]) -> Response:
        for name in ("max_tokens", "temperature", "seed", "response_format"):
            if name in asked:
                return Response(f"Unsupported parameter: '{name}'", status=400)
        return graded(number, asked)

    endpoint.behave = behave
    with pytest.warns(
        UserWarning, match=r"max_tokens \(sent as max_completion_tokens\), response_format, seed, t"
    ):
        make(max_tokens=77).score(make_answers(3))
    assert endpoint.bodies[-1].keys() == {"model", "messages", "max_completion_tokens"}
    assert endpoint.bodies[-1]["max_completion_tokens"] == 77


def test_what_is_none_is_not_sent(endpoint: Endpoint, make: Make) -> None:
    make(max_tokens=None, temperature=None, seed=None).score(make_answers(1))
    assert endpoint.bodies[0].keys() == {"model", "messages", "response_format"}


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens is too large: 99999. This model supports at most 4096 completion tokens",
        "Invalid 'max_tokens': integer below minimum value. Expected a value >= 16",
    ],
)
def test_a_bound_out_of_range_is_said(endpoint: Endpoint, make: Make, words: str) -> None:
    endpoint.behave = lambda number, asked: Response(words, status=400)
    with pytest.raises(JudgeError, match="set judge_max_tokens to what it takes"):
        make(max_tokens=99999).score(make_answers(9))


def test_an_answer_that_speaks_of_parameters_changes_nothing(
    endpoint: Endpoint, make: Make
) -> None:
    """One request that fails for its own reasons teaches nothing about the others."""

    def behave(number: int, asked: dict[str, Any]) -> Response:
        bad = by_number(asked) == 5
        return Response("no: 'seed'... temperature", status=400) if bad else graded(number, asked)

    endpoint.behave = behave
    judge = make(concurrency=1)
    with pytest.warns(UserWarning, match="1 of 9 answers") as said:
        scored = judge.score(make_answers(9))
    assert len(said) == 1 and scored["score"].notna().sum() == 8
    assert all({"seed", "temperature"} <= asked.keys() for asked in endpoint.bodies[-4:])
    assert make().estimate(make_answers(9)).calls == 1  # it is asked for again by a rerun


# ---------------------------------------------------------------------- what is no readable reply

NOTHING: dict[str, Response] = {
    "no body": Response(raw=b""),
    "null": Response(raw=b"null"),
    "a list": Response(raw=b"[]"),
    "a number": Response(raw=b"17"),
    "a page": Response(raw=b"<!DOCTYPE html><html><script>alert(1)</script></html>"),
    "cut": Response(raw=b'{"choices": [{"mess'),
    "no UTF-8": Response(raw=b"\xff\xfe\x00{"),
    "deep": Response(raw=b"[" * 100_000),
    "a stream": Response(raw=b'data: {"choices": []}\n\ndata: [DONE]\n\n'),
    "no choices": Response(raw=b'{"id": 1}'),
    "choices null": body(choices=None),
    "choices empty": body(choices=[]),
    "choices text": body(choices="none"),
    "choice null": body(choices=[None]),
    "no message": body(choices=[{}]),
    "message null": body(None),
    "message text": body("7"),
    "content null": body({"content": None}),
    "content number": body({"content": 7}),
    "content object": body({"content": {"score": 7}}),
    "parts of nothing": body({"content": [None, 3, {"type": "text"}, {"type": "text", "text": 1}]}),
    "refusal": body({"content": None, "refusal": "I cannot grade this."}),
    "tool": body({"content": None, "tool_calls": [{"id": "1"}]}),
    "thoughts": body({"content": "", "reasoning_content": FINE}),
    "odd finish": body({"content": "x"}, model=["m"], usage="much"),
}


@pytest.mark.parametrize("nothing", NOTHING.values(), ids=NOTHING)
def test_malformed_replies_are_counted(endpoint: Endpoint, make: Make, nothing: Response) -> None:
    endpoint.behave = lambda number, asked: (
        nothing if by_number(asked) in (2, 3) else graded(number, asked)
    )
    with pytest.warns(UserWarning, match="2 of 6 answers"):
        scored = make().score(make_answers(6))
    assert list(scored["status"]) == ["scored", "unparsable", "unparsable"] + ["scored"] * 3
    assert len(endpoint.bodies) == 4 + 2 * ASKS


def test_content_in_parts_is_read(endpoint: Endpoint, make: Make) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": '{"score": 1}'}]}
    parts = [thought, {"type": "text", "text": FINE[:9]}, {"type": "text", "text": FINE[9:]}]
    usage = {"prompt_tokens": None, "completion_tokens": "x"}
    endpoint.behave = lambda number, asked: body({"content": parts}, usage=usage, error=None)
    assert list(make().score(make_answers(1))["score"]) == [7.0]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('<think>\nIs it {"score": 9}? No.\n</think>\n\n{"score": 7}', 7),
        ('I think so.\n</think>{"score": 7}', 7),
        ('<think>it says "</think>{"score": 10}"</think>{"score": 3}', 3),
        ('[THINK]hm[/THINK]```json\n{"score": 4}\n```', 4),
        ('◁think▷hm◁/think▷{"score": 5}', 5),
        ('<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>'
         '{"score": 6}<|return|>', 6),
        ('<Thinking>a</Thinking> {"score": 2}', 2),
        ('{"score": 3, "reason": "it ends </think>{\\"score\\": 9}"}', 3),
        ('<think>{"score": 9}', None),
        ('{"score": 3} <think></think> {"score": 9}', None),
        ('<think></think> grade: {"score": 9}', None),
    ],
)  # fmt: skip
def test_thoughts_are_put_aside(reply: str, score: int | None) -> None:
    verdict = read_reply(reply)
    assert (verdict and verdict.score) == score


def test_replies_that_cannot_be_read_stop_before_the_rest_is_paid(
    endpoint: Endpoint, make: Make
) -> None:
    hostile = "Rating: [[7]]\x1b[31m <script>\u202e"
    endpoint.behave = lambda number, asked: Response(hostile)
    answers = make_answers(200)
    with pytest.raises(JudgeError, match=r"not one of the first 3 answers in English") as error:
        make().score(answers)
    assert len(endpoint.bodies) == FIRST * ASKS
    said = str(error.value)
    assert "Rating: [[7]]" in said and "judge_prompt" in said
    assert "\x1b" not in said and "\u202e" not in said and said.isprintable()
    endpoint.behave = graded  # mended, it starts from the beginning
    assert make().estimate(answers).calls == 200
    assert make().score(answers[:4])["score"].notna().all()


def test_each_language_has_a_call_ahead(endpoint: Endpoint, make: Make) -> None:
    def behave(number: int, asked: dict[str, Any]) -> Response:
        chinese = "in Chinese" in asked["messages"][0]["content"]
        return Response("seven", finish="length") if chinese else graded(number, asked)

    endpoint.behave = behave
    answers = make_answers(90).assign(language=["en", "zh", "vi"] * 30)
    with pytest.raises(JudgeError, match=r"first 3 answers in Chinese.*raise judge_max_tokens"):
        make().score(answers)
    assert len(endpoint.bodies) == 1 + FIRST * ASKS


def test_a_judge_is_tried_out_once(endpoint: Endpoint, make: Make) -> None:
    make().try_out()
    make().try_out()
    assert len(endpoint.bodies) == 1 and "Paris" in endpoint.asked()[0]
    endpoint.behave = lambda number, asked: Response("Rating: [[7]]", finish="length")
    with pytest.raises(
        JudgeError, match=r"'Rating: \[\[7\]\]'\. It ends at judge_max_tokens \(9\)"
    ):
        make(max_tokens=9).try_out()
    endpoint.behave = lambda number, asked: Response("no", status=401)
    with pytest.raises(JudgeError, match="refuses the key"):
        make(seed=1).try_out()


# ------------------------------------------------------------------------------ errors within 200


def inside(error: Any, **more: Any) -> Response:
    return Response(raw=json.dumps({"error": error, **more}).encode())


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (inside({"message": "bad credentials", "code": 401}), "refuses the key"),
        (inside({"message": "no such model: tiny", "code": "model_not_found"}), "has no model"),
        (inside({"message": "Invalid API key", "type": "authentication_error"}), "refuses the key"),
        (inside("Insufficient credits"), "Insufficient credits"),
        (inside({"code": 503, "message": "upstream is down"}), "keeps failing .*upstream is down"),
        (Response(raw=b'{"object": "error", "message": "gone", "code": 500}'), "gone"),
        (body(choices=[{"error": {"code": 502, "message": "provider"}}]), "keeps failing .*prov"),
    ],
)
def test_errors_within_200_are_errors(
    endpoint: Endpoint, make: Make, response: Response, message: str
) -> None:
    endpoint.behave = lambda number, asked: response
    with pytest.raises(JudgeError, match=message):
        make(retries=0).score(make_answers(30))
    assert len(endpoint.bodies) <= 7  # one per language, and one per thread


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 512 tokens; your messages and max_tokens are 900",
        "prompt is too long: 200001 tokens > 200000 maximum",
        "The input token count (40000) exceeds the maximum number of tokens allowed (32768).",
        "The response was filtered due to the prompt triggering Azure's content management policy",
    ],
)
def test_one_answer_that_is_refused_is_counted_and_not_asked_again(
    endpoint: Endpoint, make: Make, words: str
) -> None:
    endpoint.behave = lambda number, asked: (
        inside({"message": words, "code": 400}) if by_number(asked) == 1 else graded(number, asked)
    )
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 4 answers"):
            make().score(make_answers(4))
    assert len(endpoint.bodies) == 4


# ------------------------------------------------------------------------------------------- later


@pytest.mark.parametrize(
    ("headers", "words", "least"),
    [
        ((("Retry-After", "0.3"),), "slow", 0.3),
        ((("retry-after-ms", "300"), ("Retry-After", "9")), "slow", 0.3),
        ((("Retry-After", "-5"),), "slow", 0.0),
        ((), "Rate limit reached. Please try again in 300ms.", 0.3),
        ((), "You exceeded your current quota. Please retry in 0.3s.", 0.3),
    ],
)
def test_as_long_as_the_endpoint_says(
    endpoint: Endpoint, make: Make, headers: Any, words: str, least: float
) -> None:
    limited = Response(words, status=429, headers=headers)
    endpoint.behave = lambda n, asked: limited if n == 0 else graded(n, asked)
    make(retries=1).score(make_answers(1))
    assert least <= endpoint.times[1] - endpoint.times[0] < least + 0.8


def test_a_date_to_retry_after(endpoint: Endpoint, make: Make) -> None:
    def behave(number: int, asked: dict[str, Any]) -> Response:
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return Response("s", 503, (("Retry-After", later),)) if number == 0 else Response()

    endpoint.behave = behave
    make(retries=1).score(make_answers(1))
    assert endpoint.times[1] - endpoint.times[0] >= 0.9


def test_what_takes_too_long_or_was_not_paid_stops(endpoint: Endpoint, make: Make) -> None:
    hours = Response("daily limit", status=429, headers=(("Retry-After", "7200"),))
    endpoint.behave = lambda number, asked: hours
    with pytest.raises(JudgeError, match=r"it asks to wait 7,200 s.*daily limit"):
        make(concurrency=2).score(make_answers(9))
    began = time.monotonic()
    endpoint.behave = lambda number, asked: inside({"message": "insufficient_quota", "code": 429})
    with pytest.raises(JudgeError, match="more than is paid for"):
        make().score(make_answers(9))
    assert time.monotonic() - began < 1


def test_limits_per_minute_are_outlasted(endpoint: Endpoint, make: Make) -> None:
    """More in a window than its limit: all wait together, as long as some get through."""
    lock, taken = threading.Lock(), list[float]()

    def behave(number: int, asked: dict[str, Any]) -> Response:
        with lock:
            now = time.monotonic()
            taken[:] = [when for when in taken if now - when < 0.3]
            if len(taken) >= 3:
                return Response("3 a window", status=429)
            taken.append(now)
        return graded(number, asked)

    endpoint.behave = behave
    assert make(retries=1).score(make_answers(10))["score"].notna().all()


def test_as_many_calls_a_minute_as_allowed(endpoint: Endpoint, make: Make) -> None:
    judge = make(requests_per_minute=600)
    judge.score(make_answers(5))
    judge.score(make_answers(8))
    between = [b - a for a, b in zip(endpoint.times, endpoint.times[1:], strict=False)]
    assert len(between) == 7 and min(between) > 0.05 and sum(between) >= 0.65


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 529])
def test_what_passes_is_asked_again(endpoint: Endpoint, make: Make, status: int) -> None:
    page = Response(raw=b"<html><body>Bad gateway</body></html>", status=status)
    endpoint.behave = lambda number, asked: page if number == 0 else Response()
    assert list(make(retries=1).score(make_answers(1))["score"]) == [7.0]


def test_calls_on_elsewhere_are_not_followed(endpoint: Endpoint, make: Make) -> None:
    endpoint.behave = lambda number, asked: Response(
        "moved", status=308, headers=(("Location", f"https://other.host/v2?key={KEY}"),)
    )
    with pytest.raises(JudgeError, match=r"sends on to https://other\.host/v2; give") as error:
        make().score(make_answers(3))
    assert KEY not in str(error.value)


# ------------------------------------------------------------------------------------------ bounds


@pytest.fixture
def raw_server() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Serves one made-up conversation per connection, below HTTP."""
    sockets = []

    def serve(talk: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.recv(65536)
                    talk(connection)
                except OSError:
                    pass

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield serve
    for one in sockets:
        one.close()


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_call_is_bounded_as_a_whole(
    make: Make, raw_server: Callable[..., str], where: str
) -> None:
    """A byte now and then keeps a reading alive, and the call ends all the same."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        if where == "body":
            connection.sendall(b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" " if where == "body" else b"X: y\r\n")
            time.sleep(0.1)

    began = time.monotonic()
    with pytest.raises(JudgeError, match=r"gave no reply within 0\.5 s, 1 times"):
        make(endpoint=raw_server(drip), timeout=0.5, retries=0, concurrency=1).score(
            make_answers(3)
        )
    assert time.monotonic() - began < 3


def test_a_body_is_bounded(make: Make, raw_server: Callable[..., str]) -> None:
    sent = [0]

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent[0] += 65536

    with pytest.warns(UserWarning, match="1 of 1 answers"):
        make(endpoint=raw_server(flood), concurrency=1).score(make_answers(1))
    assert sent[0] < ASKS * (MOST_BYTES + 2**24)  # what the system's buffers hold besides


def test_what_is_packed_is_bounded(endpoint: Endpoint, make: Make) -> None:
    packed = gzip.compress(b" " * (2**27))
    header = (("Content-Encoding", "gzip"),)
    endpoint.behave = lambda number, asked: Response(raw=packed, headers=header)
    with pytest.warns(UserWarning, match="1 of 1 answers"):
        make().score(make_answers(1))
    fine = json.dumps({"choices": [{"message": {"content": FINE}}]}).encode()
    endpoint.behave = lambda number, asked: Response(raw=gzip.compress(fine), headers=header)
    assert list(make().score(make_answers(1))["score"]) == [7.0]


# ------------------------------------------------------------------------------------------ proxies


def test_a_proxy_is_named_and_never_asked_for_this_machine(
    endpoint: Endpoint, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://me:hidden12@127.0.0.1:9")
    assert list(make().score(make_answers(1))["score"]) == [7.0]
    for elsewhere in ("http://judge.invalid/v1", "https://judge.invalid/v1"):
        with pytest.raises(JudgeError, match=r"through the proxy http://\*\*\*@127.0.0.1:9") as e:
            make(endpoint=elsewhere, retries=0).score(make_answers(1))
        assert "hidden12" not in str(e.value)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "gopher://me:hidden12@host")
    with pytest.raises(JudgeError, match=r"proxy gopher.* cannot be used") as error:
        make(endpoint="http://judge.invalid/v1").score(make_answers(1))
    assert "hidden12" not in str(error.value)


# --------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        f"{KEY[:7]}{'*' * 20}{KEY[-4:]}",
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(f"Bearer {KEY}".encode()).decode(),
        "".join(f"%{byte:02X}" for byte in KEY.encode()),
        f"Authorization: Bearer {KEY}",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_key_that_comes_back_goes_nowhere(
    endpoint: Endpoint, make: Make, form: str, status: int
) -> None:
    endpoint.behave = lambda number, asked: Response(f"your key ({form}) is bad", status=status)
    judge = make(retries=0)
    with pytest.raises(JudgeError) as error:
        judge.score(make_answers(9))
    kept = Path(judge.cache).read_bytes().decode("latin-1")
    core = form[20:32] if "*" not in form else form[-8:]
    for text in (str(error.value), kept):
        assert core not in text and KEY[4:12] not in text
    assert "***" in str(error.value)


# ---------------------------------------------------------------------------------------- the cache


def test_a_verdict_that_was_altered_is_asked_for_again(endpoint: Endpoint, make: Make) -> None:
    endpoint.behave = graded
    judge, answers = make(), make_answers(5)
    scored = judge.score(answers)
    with sqlite3.connect(judge.cache) as file:
        file.execute("UPDATE verdicts SET score = 10 WHERE answer = 'Answer number 3.'")
    with pytest.warns(UserWarning, match="1 verdicts in .* are damaged"):
        assert make().score(answers).equals(scored)
    assert len(endpoint.bodies) == 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make().score(answers).equals(scored)


def test_a_cache_from_before_there_were_checksums(endpoint: Endpoint, make: Make) -> None:
    endpoint.behave = graded
    judge, answers = make(), make_answers(6)
    judge.score(answers[:5])
    with sqlite3.connect(judge.cache) as file:
        file.execute("DROP TABLE seals")
    assert make().estimate(answers).cached == 5
    make().score(answers)
    assert len(endpoint.bodies) == 6
    with sqlite3.connect(judge.cache) as file:
        assert file.execute("SELECT count(*) FROM seals").fetchone() == (6,)
        file.execute("DROP TABLE verdicts")
        file.execute("CREATE TABLE verdictt (a)")
    with pytest.raises(JudgeError, match=r"its table 'verdictt' is not .*\.recover.* put"):
        make().score(answers)
    assert len(endpoint.bodies) == 6


def test_no_single_byte_changes_a_grade(endpoint: Endpoint, make: Make, tmp_path: Path) -> None:
    """Whatever byte is altered: the same grades, from the cache or asked for again, or an error."""
    endpoint.behave = graded
    judge, answers = make(), make_answers(8)
    scored = judge.score(answers)
    whole, chance = Path(judge.cache).read_bytes(), random.Random(0)
    outcomes = {"same": 0, "told": 0, "error": 0}
    for trial in range(80):
        at = chance.randrange(len(whole)) if trial % 2 else chance.choice(
            [place for place in range(len(whole)) if whole[place]]
        )  # fmt: skip
        damaged = bytearray(whole)
        damaged[at] ^= 1 << chance.randrange(8)
        path = tmp_path / f"{trial}.sqlite"
        path.write_bytes(damaged)
        calls = len(endpoint.bodies)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                again = make(cache=path).score(answers)
            except JudgeError as error:
                assert "cannot be used" in str(error)
                assert path.read_bytes() == damaged
                outcomes["error"] += 1
                continue
        assert again.equals(scored), at
        assert said or len(endpoint.bodies) == calls, at
        outcomes["told" if said else "same"] += 1
    assert outcomes["told"] and outcomes["error"], outcomes
    shutil.rmtree(tmp_path, ignore_errors=True)
