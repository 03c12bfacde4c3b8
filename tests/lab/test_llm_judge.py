"""A judge behind a local endpoint that misbehaves, and its cache."""

import json
import math
import os
import re
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from made_up_answers import make_answers

from crane_lab.engines.judging import PROMPT, Judge, JudgeError, filled
from crane_lab.engines.llm_judge import ASKS, FIRST, LLMJudge

KEY = "sk-" + "verysecret0123456789abcdef"


class Response(NamedTuple):
    """What the endpoint does with one request."""

    content: str = '{"reason": "fine", "score": 7}'
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    finish: str = "stop"
    raw: bytes | None = None  # the whole body, in place of a chat completion
    cut: bool = False  # promise more bytes than are sent


class Endpoint:
    """A server that speaks /v1/chat/completions and answers as `behave(number, body)` says."""

    def __init__(self) -> None:
        self.behave: Callable[[int, dict[str, Any]], Response] = lambda number, body: Response()
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str | None] = set()
        lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(endpoint.bodies)
                    endpoint.bodies.append(body)
                    endpoint.times.append(time.monotonic())
                    endpoint.keys.add(self.headers["Authorization"])
                response = endpoint.behave(number, body)
                time.sleep(response.delay)
                message = {"role": "assistant", "content": response.content}
                completion: dict[str, Any] = {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "served-model",
                    "choices": [{"index": 0, "message": message, "finish_reason": response.finish}],
                    "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
                }
                if response.status != 200:
                    completion = {"error": {"message": response.content, "type": "t", "code": "c"}}
                raw = json.dumps(completion).encode() if response.raw is None else response.raw
                try:
                    self.send_response(response.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(raw) + 10 * response.cut))
                    for header in response.headers:
                        self.send_header(*header)
                    self.end_headers()
                    self.wfile.write(raw)
                except OSError:
                    pass  # a client that waited long enough

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def asked(self) -> list[str]:
        """The prompts in the order of their arrival."""
        return [body["messages"][0]["content"] for body in self.bodies]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    started = Endpoint()
    yield started
    started.close()


@pytest.fixture
def make(endpoint: Endpoint, tmp_path: Path) -> Callable[..., LLMJudge]:
    def judge(**options: Any) -> LLMJudge:
        given = {"endpoint": endpoint.url, "cache": tmp_path / "new" / "judge.sqlite", **options}
        return LLMJudge("tiny", **given)

    return judge


def by_number(body: dict[str, Any]) -> int:
    """A grade that depends on the answer alone."""
    found = re.search(r"Answer number (\d+)", body["messages"][0]["content"])
    assert found
    return int(found[1]) % 10 + 1


def graded(number: int, body: dict[str, Any]) -> Response:
    return Response(f'{{"reason": "r", "score": {by_number(body)}}}')


# ------------------------------------------------------------------------------------ the normal


def test_scores_keep_rows_order_and_index_whatever_the_concurrency(
    endpoint: Endpoint, make: Callable[..., LLMJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = make_answers(12)
    endpoint.behave = lambda n, body: graded(n, body)._replace(delay=0.02 * ((7 * n) % 5))
    scored = make(concurrency=6).score(answers)
    pd.testing.assert_frame_equal(scored[answers.columns], answers)
    assert list(scored["score"]) == [number % 10 + 1 for number in range(12)]
    assert scored["score"].dtype == "float64"
    assert set(scored["status"]) == {"scored"}
    assert len(endpoint.bodies) == 12
    assert endpoint.keys == {f"Bearer {KEY}"}

    # A rerun needs neither key nor endpoint, and gives the same table.
    monkeypatch.delenv("OPENAI_API_KEY")
    again = make(concurrency=1, timeout=5.0, retries=0)
    pd.testing.assert_frame_equal(again.score(answers), scored)
    pd.testing.assert_frame_equal(again.score(answers[::-1]), scored[::-1])
    twice = again.score(pd.concat([answers, answers]))  # an index may hold a name twice
    pd.testing.assert_frame_equal(twice, pd.concat([scored, scored]))
    assert len(endpoint.bodies) == 12


def test_request_holds_the_parameters_and_the_prompt(
    endpoint: Endpoint, make: Callable[..., LLMJudge]
) -> None:
    make(max_tokens=50, temperature=0.5, seed=3).score(make_answers(1))
    body = endpoint.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == (
        "tiny",
        50,
        0.5,
        3,
    )
    assert body["response_format"] == {"type": "json_object"}
    assert '"What is this?"' in endpoint.asked()[0]
    assert "The question is in English" in endpoint.asked()[0]
    make(seed=None).score(make_answers(1))
    assert "seed" not in endpoint.bodies[1]


def test_equal_answers_cost_one_call_and_empty_ones_none(
    endpoint: Endpoint, make: Callable[..., LLMJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = make_answers(6, ["same", "same", "same", "same", "", " \n"])
    scored = make().score(answers)  # two languages besides "en"
    assert len(endpoint.bodies) == 3
    assert list(scored["status"]) == ["scored"] * 4 + ["empty"] * 2
    assert list(scored["score"]) == [7.0] * 4 + [1.0] * 2
    monkeypatch.delenv("OPENAI_API_KEY")
    assert list(make(seed=9).score(answers[4:])["score"]) == [1.0, 1.0]
    none = make().score(answers[:0])
    assert list(none.columns) == [*answers.columns, "score", "status", "reason"] and none.empty


def test_estimate_says_what_is_left(endpoint: Endpoint, make: Callable[..., LLMJudge]) -> None:
    judge, answers = make(max_tokens=30), make_answers(8)
    as_any_judge: Judge = judge
    assert as_any_judge.name == "llm"
    first = judge.estimate(pd.concat([answers, answers]))
    assert (first.calls, first.cached, first.completion_tokens) == (8, 0, 240)
    sent = sum(len(filled(PROMPT, "What is this?", text, "en")) for text in answers["text"])
    assert first.prompt_tokens == pytest.approx(sent / 3, rel=0.05)
    assert not Path(judge.cache).exists() and not endpoint.bodies
    judge.score(answers[:5])
    second = judge.estimate(answers)
    assert (second.calls, second.cached) == (3, 5)
    assert re.fullmatch(r"3 calls .*5 verdicts.* [\d,]+ tokens in, at most 90 out", str(second))


def test_what_verdicts_depend_on_decides_what_is_asked_again(
    endpoint: Endpoint, make: Callable[..., LLMJudge]
) -> None:
    answers = make_answers(1)
    make().score(answers)
    for same in ({"concurrency": 2}, {"retries": 1}, {"timeout": 9.0}, {"endpoint": endpoint.url}):
        assert make(**same).estimate(answers).calls == 0
    assert make(endpoint=endpoint.url + "/").estimate(answers).calls == 0
    for other in (
        {"prompt": "{question}{answer}{language}"},
        {"max_tokens": 201},
        {"temperature": 0.1},
        {"seed": 1},
        {"endpoint": None},
    ):
        assert make(**other).estimate(answers).calls == 1
    for column in ("language", "question", "text"):
        assert make().estimate(answers.assign(**{column: "other"})).calls == 1
    assert make().estimate(answers.assign(id=99, mask="zh")).calls == 0
    json.dumps(make().fingerprint(), allow_nan=False)


# ----------------------------------------------------------------------------------- misbehaviour


@pytest.mark.parametrize(
    "first",
    [
        Response("slow down", status=429, headers=(("Retry-After", "0.02"),)),
        Response("oh no", status=500),
        Response("busy", status=503),
        Response(delay=1.5),
        Response(cut=True),
        Response(raw=b'{"choices": [{"mess'),
        Response(raw=b"<html>hello</html>"),
        Response('{"score": 7, "rea', finish="length"),
        Response('{"score": 11}'),
        Response(""),
    ],
    ids=lambda response: f"{response.status} {response.raw or response.content}"[:20],
)
def test_one_bad_reply_is_asked_again(
    endpoint: Endpoint, make: Callable[..., LLMJudge], first: Response
) -> None:
    endpoint.behave = lambda number, body: first if number == 0 else Response()
    scored = make(timeout=1.0, retries=1).score(make_answers(3))
    assert list(scored["score"]) == [7.0] * 3
    assert len(endpoint.bodies) == 4


def test_retry_after_is_honoured(endpoint: Endpoint, make: Callable[..., LLMJudge]) -> None:
    waits = Response("slow down", status=429, headers=(("Retry-After", "0.4"),))
    endpoint.behave = lambda number, body: waits if number == 0 else Response()
    make().score(make_answers(1))
    assert endpoint.times[1] - endpoint.times[0] >= 0.4


def test_unreadable_replies_are_counted_and_kept(
    endpoint: Endpoint, make: Callable[..., LLMJudge]
) -> None:
    def eleven_for_some(number: int, body: dict[str, Any]) -> Response:
        return Response('{"score": 11}' if by_number(body) > 3 else '{"score": 2}')

    endpoint.behave = eleven_for_some
    answers = make_answers(5).assign(language=["en", "zh", "vi", "vi", "en"])
    judge = make()
    with pytest.warns(UserWarning, match=r"2 of 5 answers \(1 vi, 1 en\)"):
        scored = judge.score(answers)
    assert list(scored["status"]) == ["scored"] * 3 + ["unparsable"] * 2
    assert list(scored["score"][:3]) == [2.0] * 3 and scored["score"][3:].isna().all()
    assert len(endpoint.bodies) == 3 + 2 * ASKS
    assert sorted(body["seed"] for body in endpoint.bodies) == [0] * 5 + [1] * 2 + [2] * 2
    with sqlite3.connect(make().cache) as file:
        kept = file.execute(
            "SELECT reply, asked, prompt_tokens, completion_tokens, served_model FROM verdicts "
            "WHERE status = 'unparsable'"
        ).fetchall()
    assert kept == [('{"score": 11}', 3, 33, 15, "served-model")] * 2
    assert scored["status"].value_counts().to_dict() == {"scored": 3, "unparsable": 2}
    with pytest.warns(UserWarning, match="2 of 5 answers"):  # the same judge asks no more
        pd.testing.assert_frame_equal(judge.score(answers), scored)
    assert len(endpoint.bodies) == 3 + 2 * ASKS
    assert make().estimate(answers).calls == 2  # a rerun does, with further seeds
    endpoint.behave = lambda number, body: Response()
    assert list(make().score(answers)["score"]) == [2.0, 2.0, 2.0, 7.0, 7.0]
    assert [body["seed"] for body in endpoint.bodies[3 + 2 * ASKS :]] == [ASKS, ASKS]


def test_replies_cut_by_max_tokens_are_named(
    endpoint: Endpoint, make: Callable[..., LLMJudge]
) -> None:
    endpoint.behave = lambda number, body: Response('{"reason": "on and o', finish="length")
    with pytest.warns(UserWarning, match="1 of these replies broke off at max_tokens=5"):
        make(max_tokens=5).score(make_answers(1))


def test_an_endpoint_without_response_format(
    endpoint: Endpoint, make: Callable[..., LLMJudge]
) -> None:
    def refuse_format(number: int, body: dict[str, Any]) -> Response:
        unknown = Response("unknown field response_format", status=400)
        return unknown if "response_format" in body else graded(number, body)

    endpoint.behave = refuse_format
    with pytest.warns(UserWarning, match="does not take response_format for tiny"):
        assert list(make().score(make_answers(6))["score"]) == [1, 2, 3, 4, 5, 6]
    assert ["response_format" in body for body in endpoint.bodies] == [True] + [False] * 6


def test_an_answer_the_endpoint_refuses_does_not_stop_the_others(
    endpoint: Endpoint, make: Callable[..., LLMJudge]
) -> None:
    def filtered(number: int, body: dict[str, Any]) -> Response:
        refused = Response("code content_filter: the prompt is refused", status=400)
        return refused if by_number(body) == 1 else Response()

    endpoint.behave = filtered
    with pytest.warns(UserWarning, match="1 of 4 answers"):
        scored = make().score(make_answers(4))
    assert list(scored["status"]) == ["unparsable"] + ["scored"] * 3
    assert len(endpoint.bodies) == 4


def test_half_surrogates_in_a_reply_are_stored(
    endpoint: Endpoint, make: Callable[..., LLMJudge]
) -> None:
    endpoint.behave = lambda n, body: Response('{"score": 4, "reason": "\\ud800 \ud800"}')
    assert list(make().score(make_answers(1))["score"]) == [4.0]


# --------------------------------------------------------------------------- failing and resuming


def test_resumes_where_the_endpoint_died(endpoint: Endpoint, make: Callable[..., LLMJudge]) -> None:
    dead = Response("maintenance", status=503)
    endpoint.behave = lambda number, body: graded(number, body) if number < 7 else dead
    judge, answers = make(concurrency=2, retries=1), make_answers(20)
    with pytest.raises(JudgeError, match=r"keeps failing .*maintenance") as error:
        judge.score(answers)
    assert re.search(r"7 of 20 verdicts are done and safe.*, 13 are left", str(error.value))
    assert len(endpoint.bodies) < 20  # it did not try the other 13, twice each
    assert judge.estimate(answers).cached == 7

    endpoint.behave = graded
    endpoint.bodies.clear()
    scored = judge.score(answers)
    assert list(scored["score"]) == [number % 10 + 1 for number in range(20)]
    assert len(endpoint.bodies) == 13


def test_endpoint_that_is_not_there(endpoint: Endpoint, make: Callable[..., LLMJudge]) -> None:
    endpoint.close()
    with pytest.raises(JudgeError, match=r"cannot be reached \(.*refused.*0 of 3 .* 3 are left"):
        make(retries=1).score(make_answers(3))


def test_endpoint_that_only_hangs(endpoint: Endpoint, make: Callable[..., LLMJudge]) -> None:
    endpoint.behave = lambda number, body: Response(delay=1.0)
    with pytest.raises(JudgeError, match=r"no reply within 0.3 s, 2 times"):
        make(timeout=0.3, retries=1, concurrency=1).score(make_answers(4))
    assert len(endpoint.bodies) == 4  # two answers, twice each


def test_one_answer_that_always_fails_does_not_hold_up_the_rest(
    endpoint: Endpoint, make: Callable[..., LLMJudge]
) -> None:
    def poisoned(number: int, body: dict[str, Any]) -> Response:
        return Response("no", status=500) if by_number(body) == 1 else graded(number, body)

    endpoint.behave = poisoned
    with pytest.raises(JudgeError, match="8 of 9 verdicts are done"):
        make(retries=1).score(make_answers(9))
    endpoint.behave = graded
    endpoint.bodies.clear()
    make().score(make_answers(9))
    assert len(endpoint.bodies) == 1


def test_something_else_at_the_endpoint(endpoint: Endpoint, make: Callable[..., LLMJudge]) -> None:
    endpoint.behave = lambda number, body: Response(raw=b"<html>welcome</html>")
    with pytest.raises(JudgeError, match=r"no chat completion but '<html>welcome.*/v1"):
        make().score(make_answers(80))
    assert len(endpoint.bodies) == FIRST * ASKS
    assert make().estimate(make_answers(8)).cached == 0


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "refuses the key in OPENAI_API_KEY"),
        (403, "refuses the key in OPENAI_API_KEY"),
        (404, "has no model 'tiny'"),
        (400, "rejects the request"),
        (413, "rejects the request"),
    ],
)
def test_what_no_retry_mends_fails_at_once_without_telling_the_key(
    endpoint: Endpoint, make: Callable[..., LLMJudge], status: int, message: str
) -> None:
    endpoint.behave = lambda number, body: Response(f"sorry, {KEY} no", status=status)
    with pytest.raises(JudgeError, match=message) as caught:
        make().score(make_answers(8))
    assert "0 of 8 verdicts" in str(caught.value)
    # A format that is refused looks like this too, hence one more try.
    assert len(endpoint.bodies) == (2 if status == 400 else 1)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in repr(error) and not hasattr(error, "request")
        error = error.__cause__ or error.__context__


def test_interrupt_keeps_what_is_done(endpoint: Endpoint, make: Callable[..., LLMJudge]) -> None:
    def interrupted(number: int, body: dict[str, Any]) -> Response:
        if number == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return graded(number, body)._replace(delay=0.1 * (number >= 6))

    endpoint.behave = interrupted
    judge, answers = make(concurrency=2), make_answers(40)
    # A process in the background of a shell ignores Ctrl-C unless told otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            judge.score(answers)
    finally:
        signal.signal(signal.SIGINT, before)
    for thread in threading.enumerate():  # calls in flight end
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join()
    kept, calls = judge.estimate(answers).cached, len(endpoint.bodies)
    assert 5 <= kept <= calls < 40
    endpoint.behave = graded
    assert list(judge.score(answers)["score"]) == [number % 10 + 1 for number in range(40)]
    assert len(endpoint.bodies) - calls == 40 - kept


# ------------------------------------------------------------------------------- key and settings


@pytest.mark.parametrize("value", [None, "", "  ", "sk\nx", "clé-secrète"])
def test_missing_or_broken_key(
    make: Callable[..., LLMJudge],
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    value: str | None,
) -> None:
    monkeypatch.setenv("JUDGE_KEY", value or "")
    if value is None:
        monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(JudgeError, match=r"variable JUDGE_KEY .* never a parameter") as error:
        make(key_variable="JUDGE_KEY").score(make_answers(2))
    assert "secr" not in str(error.value) and not endpoint.bodies


def test_the_key_is_kept_nowhere(
    endpoint: Endpoint, make: Callable[..., LLMJudge], capfd: pytest.CaptureFixture[str]
) -> None:
    endpoint.behave = lambda n, body: Response(
        f'{{"score": {11 if n else 5}, "reason": "the key is {KEY}"}}'
    )
    judge = make(concurrency=1)
    with pytest.warns(UserWarning) as warned:
        scored = judge.score(make_answers(2))
    assert KEY not in repr(judge) + repr(judge.fingerprint()) + repr(vars(judge))
    assert KEY not in scored.to_csv() + str(warned[0].message) + "".join(capfd.readouterr())
    files = list(Path(judge.cache).parent.iterdir())
    assert files == [Path(judge.cache)]  # no journal stays behind
    assert KEY.encode() not in files[0].read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": " "}, "model is empty"),
        ({"model": KEY}, "looks like a secret"),
        ({"key_variable": KEY}, "looks like a secret"),
        ({"key_variable": "abc123secret"}, "never the key"),
        ({"endpoint": "https://me:secret0@host/v1"}, "user:password@host"),
        ({"endpoint": "me:secret0@host/v1"}, "user:password@host"),
        ({"endpoint": "https://host/v1?key=secret0"}, "looks like a secret"),
        ({"endpoint": "https://host/v1?x=secret0"}, r"give the base URL alone, .*https://host/v1$"),
        ({"endpoint": "https://host/v1/chat/completions"}, "without /chat/completions"),
        (
            {"endpoint": "https://me.openai.azure.com/openai/deployments/d?api-version=secret0"},
            r"Azure's older address.* give https://me\.openai\.azure\.com/openai/v1 instead",
        ),
        ({"endpoint": "https://host:port/v1"}, "no base URL"),
        ({"endpoint": "https://[::1/v1"}, "no base URL"),
        ({"endpoint": "ftp://host/v1"}, "no base URL"),
        ({"endpoint": "https://ho st/v1"}, "no base URL"),
        ({"endpoint": "localhost:8000/v1"}, "no base URL"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"retries": -1}, "retries must be at least 0"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": math.inf}, "temperature must be"),
        ({"requests_per_minute": 0}, "requests_per_minute is a positive number, or None"),
        ({"requests_per_minute": math.nan}, "requests_per_minute is a positive"),
        ({"timeout": 0}, "timeout is a positive number"),
        ({"timeout": math.inf}, "timeout is a positive number"),
    ],
)
def test_settings_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        LLMJudge(**{"model": "tiny", **options})
    assert "secret0" not in str(error.value) and "abc123" not in str(error.value)


def test_answers_it_cannot_take(endpoint: Endpoint, make: Callable[..., LLMJudge]) -> None:
    judge, answers = make(), make_answers(3)
    with pytest.raises(ValueError, match="question, text missing"):
        judge.score(answers.drop(columns=["question", "text"]))
    with pytest.raises(TypeError, match="answer 1: text is no text but nan"):
        judge.score(answers.assign(text=["a", math.nan, "b"]))
    with pytest.raises(ValueError, match="answer 2: text is no Unicode"):
        judge.estimate(answers.astype({"text": object}).replace("Answer number 2.", "\ud800"))
    assert not endpoint.bodies


# -------------------------------------------------------------------------------------- the cache


def test_two_judges_share_a_cache(endpoint: Endpoint, make: Callable[..., LLMJudge]) -> None:
    count = iter(range(1000))
    endpoint.behave = lambda n, body: Response(f'{{"score": {next(count) % 10 + 1}}}', delay=0.005)
    answers = make_answers(40)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda judge: judge.score(answers), [make(), make()])
    # Grades differ from call to call, and the first one kept is the one that both give.
    pd.testing.assert_frame_equal(one, two)
    with sqlite3.connect(make().cache) as file:
        assert file.execute("SELECT count(*), count(DISTINCT key) FROM verdicts").fetchone() == (
            40,
            40,
        )


def test_a_file_that_is_no_cache_is_left_alone(
    endpoint: Endpoint, make: Callable[..., LLMJudge], tmp_path: Path
) -> None:
    other = tmp_path / "notes.sqlite"
    other.write_text("these are notes, and long enough to look like a file " * 50)
    before = other.read_bytes()
    with pytest.raises(JudgeError, match=r"notes\.sqlite cannot be used: file is not a database"):
        make(cache=other).score(make_answers(1))
    assert other.read_bytes() == before
    with pytest.raises(JudgeError, match="cannot be used"):
        make(cache=tmp_path).score(make_answers(1))
    with pytest.raises(JudgeError, match="no folder for the cache"):
        make(cache=other / "judge.sqlite").score(make_answers(1))
    other.write_bytes(b"")  # what a process leaves that is killed while it makes the file
    assert list(make(cache=other).score(make_answers(1))["score"]) == [7.0]
    assert len(endpoint.bodies) == 1
