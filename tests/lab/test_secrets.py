"""Keys are told from names, and never come out again."""

import base64
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from crane_lab.runs import Project, RunError
from crane_lab.runs.parameters import load_profile
from crane_lab.store.secrets import refuse_secret, scrubbed

# Put together here, so that nobody's scanner takes this file for a leak.
KEYS = {
    "openai": "sk-" + "proj-Ab3_dE-9fGhIjKlMnOpQrStUv" * 2,
    "openai once": "sk-" + "Ab3dE9fGhIjKlMnOpQrSt" + "T3BlbkFJ" + "Ab3dE9fGhIjKlMnOpQrS",
    "service account": "sk-" + "svcacct-Q1w2E3r4T5y6U7i8O9p0",
    "anthropic": "sk-" + "ant-api03-aB-cD_eF01234567890123456789-AA",
    "openrouter": "sk-" + "or-v1-" + "0123456789abcdef" * 4,
    "deepseek": "sk-" + "0123456789abcdef" * 2,
    "hugging face": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
    "github": "ghp_" + "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX",
    "github, fine": "github_pat_" + "11ABCDEFG0abcdefghijkl_" + "x9" * 29,
    "gitlab": "glpat-" + "Ab3_dE-9fGhIjKlMnOpQ",
    "google": "AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "groq": "gsk_" + "Ab3dE9fGhIjKlMnOpQrStUvWxYzAb3dE9fGhIjKlMnOpQrStUvWx",
    "slack": "xoxb-" + "1234567890-abcdefghijkl",
    "token": "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "dBjftJeZ4CVP-mB92K27uhbU",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize(
    "put",
    [
        lambda key: key,
        lambda key: f"  {key}\n",
        lambda key: [1, ["label", key]],
        lambda key: {"inner": {"a": (key,)}},
        lambda key: {key: 1},
        lambda key: f"https://host/v1?x=1&deployment={key}",
        lambda key: f"https://host/v1?a={quote(key, safe='').replace('-', '%2D')}",
        lambda key: f"https://{key}@host/v1",
        lambda key: f"Bearer {key}",
        lambda key: Path("models") / key,
    ],
)
def test_a_key_is_refused_wherever_it_stands(key: str, put: object) -> None:
    with pytest.raises(ValueError, match="parameter label ") as error:
        refuse_secret("label", put(key))  # type: ignore[operator]
    assert key[4:] not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://user:password@host/v1",
        "http://user:pa%40ss@localhost:8000/v1",
        "https://user:p@ss@host",
        "https://user:pa/ss@host",
        "https://onlyname@host/v1",
        "user:password@host/v1",
        "user:password@host:8000",
        "s3://id:pw@bucket/corpus",
        "see https://user:password@host/v1 for it",
        "https%3A%2F%2Fuser%3Apassword%40host",
        "https://host/v1?api_key=abcdef123",
        "https://host/file?X-Amz-Signature=0123456789abcdef",
        "https://host/file?sv=2020&sig=abc%2Fdefg",
    ],
)
def test_a_password_in_an_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"user:password@host|looks like a secret") as error:
        refuse_secret("judge_endpoint", address)
    assert address not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        "hf_checkpoints_llama2_7b",
        "hf_converted_vinallama_7b/base",
        "pk_parallel_corpus_en_zh_vi",
        "hf-gemma3_27b_it_judge_v2",
        "sk-wikipedia-2024-corpus-dump",
        "runs/sk_learn_pipeline_2024",
        "sk_SK-newscrawl2023",
        "ghp_pages_of_the_project",
        "hub:wikimedia/wikipedia:20231101.{language}",
        "hub:org/name@0123456789abcdef0123456789abcdef01234567",
        "org/model@main",
        "http://localhost:8000/v1",
        "http://[::1]:8000/v1",
        "https://host/v1?language=en&page=2",
        "basic_training_2024_model_run_7",
        "basic training 2024-model-run-7-of-9",
        "snapshots/0123456789abcdef0123456789abcdef01234567",
        "gpt-4o",
        "task-0123456789abcdefghij",
        "",
        None,
        3,
        ["en", "zh"],
    ],
)
def test_names_are_no_keys(value: object) -> None:
    refuse_secret("model", value)


def test_what_lies_there_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "sk-" + "checkpoint2024llama7bchat"
    with pytest.raises(ValueError, match="looks like a secret"):
        refuse_secret("model", name)
    (tmp_path / name).mkdir()
    refuse_secret("model", name)


@pytest.mark.parametrize("name", ["hf_token", "apiKey", "db_password", "secret_file", "pwd"])
def test_names_of_secrets(name: str) -> None:
    with pytest.raises(ValueError, match=f"parameter {name} looks like a secret"):
        refuse_secret(name, 1)


def test_what_the_environment_holds_is_refused_whatever_its_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "q7" * 16  # such as Mistral's: no prefix tells it
    refuse_secret("judge_model", key)
    monkeypatch.setenv("MISTRAL_API_KEY", key)
    with pytest.raises(ValueError, match="judge_model looks like a secret"):
        refuse_secret("judge_model", key)
    assert key not in scrubbed(f"no such model {key}")
    monkeypatch.setenv("MISTRAL_API_KEY", "gpt-4o")  # a placeholder hides nothing
    refuse_secret("judge_model", "gpt-4o")


SECRET = KEYS["openai"]


@pytest.mark.parametrize("secret", [SECRET, "q7w8e9r0" * 4, KEYS["anthropic"]])
def test_a_secret_is_taken_out_in_every_form(secret: str) -> None:
    def base(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    for form in (
        secret,
        secret.upper(),
        secret[:20],
        secret[-12:],
        quote(secret, safe=""),
        "".join(f"%{ord(one):02x}" for one in secret),
        "".join(f"\\u{ord(one):04x}" for one in secret),
        "".join(f"&#x{ord(one):x};" for one in secret),
        secret.encode().hex(),
        base(secret),
        base(f"Bearer {secret}")[10:],  # what is before the key may be seen
        base(f"x:{secret}")[2:],
        base(f"user:{secret}")[6:],
        base64.urlsafe_b64encode(f"???{secret}>>>".encode()).decode()[4:-4],
    ):
        text = scrubbed(f"Before ({form}) after, and {form}.", [secret])
        assert "***" in text and text.startswith("Before (") and ") after, and " in text
        left = [form[i : i + 8] for i in range(len(form) - 7) if form[i : i + 8] in text]
        assert not left, (form, text)


@pytest.mark.parametrize(
    "masked",
    [
        f"{SECRET[:8]}{'*' * 30}{SECRET[-4:]}",
        f"{SECRET[:10]}...{SECRET[-4:]}",
        f"{SECRET[:6]}…{SECRET[-6:]}",
        f"{'•' * 12}{SECRET[-5:]}",
        f"{SECRET[:4]}xxxxxxxx{SECRET[-4:]}",
    ],
)
def test_a_masked_key_leaves_no_piece(masked: str) -> None:
    text = scrubbed(f"Incorrect API key provided: {masked}. See https://host/keys...", [SECRET])
    assert SECRET[-4:] not in text and SECRET[:4] not in text
    assert text.startswith("Incorrect API key provided: ***")
    ending = scrubbed(f"the key ending in {SECRET[-4:]} is wrong", [SECRET])
    assert SECRET[-4:] not in ending


def test_keys_of_others_and_headers_are_taken_out() -> None:
    for key in KEYS.values():
        text = scrubbed(f'{{"error": "no such key {key}"}}')
        assert key[8:] not in text and text.startswith('{"error": "no such key ***')
    text = scrubbed("Authorization: Bearer 0123456789abcdefghij, proxy http://me:pw@host:3128/x")
    assert text == "Authorization: Bearer ***, proxy http://***@host:3128/x"
    assert scrubbed("see /v1?api_key=abc12345&x=1") == "see /v1?api_key=***&x=1"


@pytest.mark.parametrize("placeholder", ["EMPTY", "x", "none", "sk-no-key-required", "7"])
def test_placeholders_for_keys_leave_texts_readable(placeholder: str) -> None:
    text = 'The score required is {"score": 7.5, "reason": "emptyness, xenon"}'
    assert scrubbed(text, [placeholder]) == text


def test_long_texts_take_no_time() -> None:
    began = time.monotonic()
    for text in ("a" * 20000, "sk-" * 7000, "eyJ-" * 5000, "a:b@" * 5000, "bearer " * 3000):
        scrubbed(text, [SECRET])
        refuse_secret("label", text[:4000] + " ")
    assert time.monotonic() - began < 20


def test_keys_reach_neither_run_nor_message(tmp_path: Path) -> None:
    project = Project()
    for name in ("label", "model", "languages", "n_samples", "nonsense"):
        for value in (SECRET, f"[{SECRET}]", f"https://me:{SECRET}@host/v1"):
            with pytest.raises((ValueError, TypeError)) as error:
                project.run("smoke", {name: value})
            assert SECRET[8:] not in str(error.value)
    with pytest.raises(ValueError) as error:
        project.run("smoke", {SECRET: "1"})
    assert SECRET[8:] not in str(error.value)
    profiles = {
        "a": f"languages: [en, {SECRET}]",
        "b": f"judge_endpoint: https://me:{SECRET}@host",
        "c": f"model: '{SECRET}\n  : : -",
        "d": f"{SECRET}: 1",
        "e": f"model: {{{SECRET}: 1}}",
    }
    for name, text in profiles.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        with pytest.raises(ValueError) as error:
            load_profile(tmp_path, name)
        assert SECRET[8:] not in str(error.value), name


def test_a_notebook_that_fails_keeps_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a library says of a key it was refused with ends in neither page nor message."""
    key = "q7w8e9r0" * 4
    monkeypatch.setenv("OTHER_API_KEY", key)
    root = tmp_path / "book"
    (root / "notebooks" / "profiles").mkdir(parents=True)
    (root / "notebooks" / "profiles" / "testbed.yaml").write_text("n: 1\n")
    (root / "notebooks" / "01_bad.py").write_text(
        '# %% tags=["parameters"]\nn = 1  # how many\n\n# %%\nimport os\nimport sys\n'
        'key = os.environ["OTHER_API_KEY"]\nprint("asked with", key)\n'
        'print("and", key, file=sys.stderr)\nraise ValueError(f"no such key: {key}")\n'
    )
    with pytest.raises(RunError, match=r"ValueError: no such key: \*\*\*") as error:
        Project(root).run().execute(progress=False)
    assert key not in str(error.value)
    files = [path for path in root.rglob("*") if path.is_file()]
    assert any(path.name == "01_bad.failed.ipynb" for path in files)
    assert not [path for path in files if key.encode() in path.read_bytes()]
