"""What must never be written into a file or a page.

Keys are told by the formats that their makers publish (prefix, alphabet, length; gitleaks and
trufflehog keep the longest lists of them), so that a folder called `hf_checkpoints` is none.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

#: Keys by their published formats. After `sk-` alone it takes more, since sk is Slovak's code, too.
_KEYS = re.compile(
    r"""(?<![A-Za-z0-9])(?:
    sk-(?:proj|svcacct|admin|None|ant|or|lf|litellm)-[\w-]{12,}  # OpenAI, Anthropic, OpenRouter
    | sk-(?:[A-Za-z0-9]{24,}|(?=[A-Za-z]*[0-9])[A-Za-z0-9]{20,})  # OpenAI once, DeepSeek, Qwen
    | hf_[A-Za-z0-9]{30,} | api_org_[A-Za-z0-9]{30,}             # Hugging Face
    | [sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,}                  # Stripe
    | gh[pousr]_[A-Za-z0-9]{36,} | github_pat_[A-Za-z0-9_]{40,} | glpat-[\w-]{20,}
    | xox[a-z]-[\w-]{10,} | xapp-[\w-]{20,}                      # Slack
    | (?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])         # AWS
    | AIza[\w-]{35} | ya29\.[\w-]{20,} | GOCSPX-[\w-]{20,}       # Google
    | gsk_[A-Za-z0-9]{40,} | xai-[A-Za-z0-9]{40,} | pplx-[A-Za-z0-9]{40,} | csk-[A-Za-z0-9]{40,}
    | r8_[A-Za-z0-9]{30,} | nvapi-[\w-]{40,} | fw_[A-Za-z0-9]{20,} | tvly-(?:\w+-)?[A-Za-z0-9]{24,}
    | dapi[0-9a-f]{32} | lsv2_[a-z]{2}_[0-9a-f]{32} | npm_[A-Za-z0-9]{36} | pypi-AgEI[\w-]{40,}
    | wandb_v1_[\w-]{30,} | do[opr]_v1_[0-9a-f]{60,} | SG\.[\w-]{16,}\.[\w-]{30,}
    | eyJ[\w-]{10,2000}\.eyJ[\w-]{10,}\.[\w-]{10,}                  # JSON web tokens
    )|-----BEGIN[A-Z ]*PRIVATE\ KEY-----""",
    re.VERBOSE,
)
#: A name or a password before the host, with a scheme in front or without.
_USER_INFO = re.compile(
    r"(?<![\w+.-])[A-Za-z][\w+.-]{0,30}://"
    r"(?P<value>[^\s/?#]+|[^\s/?#:@]*:(?!\d*[/?#])[^\s@]{1,200})@"
    r"|^(?!hub:)(?P<bare>[^\s/?#@:]+:[^\s/?#@]+)@(?=[\w-]+(?:\.[\w-]+)*(?::\d+)?(?:[/?#]|$))"
)
#: What a query calls its keys.
_QUERY = re.compile(
    r"[?&;#](?:[\w-]{0,40}(?:key|token|secret|password|passwd|signature|credential)|sig|auth|pwd)"
    r"=(?P<value>[^&;#\s]{6,})",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?<!\w)(?:bearer\s+|(?:authorization|(?:x-)?api[-_ ]?key)(?:\s+provided)?[\"']?\s*[:=]"
    r"\s*[\"']?(?:bearer\s+|basic\s+)?)(?P<value>(?=[^\s\"',]*[0-9])[\w.~+/=-]{16,})",
    re.IGNORECASE,
)
_NAMES = {"key", "apikey", "token", "password", "passwd", "pwd", "secret"}
_MASKED = re.compile(r"(?:(?!\s)[\w/+=.:*•●·∗…-]){4,200}")
_MASK = re.compile(r"\*{2,}|[•●·∗]{2,}|…|\.{3,}|[xX]{4,}")
#: One character, as it is or written as an escape of an address, of JSON or of HTML.
_CHARACTER = re.compile(
    r"%([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})|&#x([0-9A-Fa-f]{2,4});|.", re.DOTALL
)
_SHORT = 8  # what is shorter is a placeholder such as EMPTY, and may be a word of the text


def _words(name: str) -> list[str]:
    return re.split(r"[_\W]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def _named_secret(name: str) -> bool:
    """`max_new_tokens` is a parameter and `hf_token` is a secret."""
    words = _words(name)
    return words[-1] in _NAMES or bool(
        {"secret", "password", "credential", "credentials"} & set(words)
    )


def kept_in_environment() -> set[str]:
    """The values of this process' environment variables that are keys by their names.

    Only such as could be no word: at least 16 characters, a digit and a letter among them.
    """
    return {
        value
        for name, given in os.environ.items()
        if (value := given.strip())
        and _named_secret(name)
        and len(value) >= 16
        and re.search("[0-9]", value)
        and re.search("[A-Za-z]", value)
        and not os.path.exists(value)
    }


def _texts(value: object) -> Iterable[str]:
    """Every text within a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, os.PathLike):
        yield os.fspath(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(name)
            yield from _texts(inner)
    elif isinstance(value, Iterable):
        for inner in value:
            yield from _texts(inner)


def holds_secret(text: str) -> bool:
    """Whether a text is or holds a key, a password in an address, or a key of the environment.

    The name of a file or folder that exists is none. Percent signs (`%2D`) are read as what they
    stand for.
    """
    if not text or os.path.exists(text):
        return False
    for form in {text, unquote(text)}:
        if _KEYS.search(form) or _USER_INFO.search(form) or _QUERY.search(form):
            return True
        if _HEADER.search(form) or any(key in form for key in kept_in_environment()):
            return True
    return False


def refuse_secret(name: str, value: object) -> None:
    """Refuse a parameter that is a key by its name or its value: parameters are printed in pages.

    Texts are looked for in lists and mappings, too. Raises ValueError, which does not repeat the
    value.
    """
    shown = scrubbed(name)
    if any(_USER_INFO.search(form) for text in _texts(value) for form in (text, unquote(text))):
        raise ValueError(
            f"parameter {shown} holds a name or a password in an address (user:password@host), and "
            "parameters are written into the run and the book; give the address without it, and "
            "put the key into an environment variable"
        )
    if _named_secret(name) or shown != name or any(map(holds_secret, _texts(value))):
        raise ValueError(
            f"parameter {shown} looks like a secret, and parameters are written into the run and "
            "the book; put it into an environment variable instead"
        )


def _forms(secret: str) -> set[str]:
    """The forms a secret may come back in, besides escapes: as it is, in hex and in base64."""
    forms = {secret, secret.encode().hex()}
    for offset in range(3):  # base64 of it with anything before it: three ways to be aligned
        told = base64.b64encode(b"\0" * offset + secret.encode())
        whole = told.decode().rstrip("=")[(4 * offset + 2) // 3 :]
        forms |= {whole, whole.replace("+", "-").replace("/", "_")}
    return forms


def _lower(text: str) -> str:
    """Lower case, character by character."""
    return "".join(low if len(low := one.lower()) == 1 else one for one in text)


def _stretches(secret: str) -> dict[int, set[str]]:
    """By length, what is hidden of a secret: its forms, and each 8 characters that are no word."""
    found: dict[int, set[str]] = {}
    for form in _forms(secret):
        found.setdefault(len(form), set()).add(_lower(form))
        for start in range(len(form) - _SHORT + 1):
            part = form[start : start + _SHORT]
            if not (part.isalpha() and (part.islower() or part.isupper() or part.istitle())):
                found.setdefault(_SHORT, set()).add(_lower(part))
    return found


def _mark(hidden: list[bool], start: int, end: int) -> None:
    hidden[start:end] = [True] * (end - start)


def _mark_secret(text: str, secret: str, hidden: list[bool]) -> None:
    if len(secret) < 4:  # "x" or "1", as some local servers are told
        return
    if len(secret) < _SHORT:
        for found in re.finditer(rf"(?<!\w){re.escape(secret)}(?!\w)", text):
            _mark(hidden, *found.span())
        return
    characters = list(_CHARACTER.finditer(text))
    plain = _lower(
        "".join(
            chr(int(number, 16)) if (number := one[1] or one[2] or one[3]) else one[0]
            for one in characters
        )
    )
    for length, parts in _stretches(secret).items():
        for start in range(len(plain) - length + 1):
            if plain[start : start + length] in parts:
                _mark(hidden, characters[start].start(), characters[start + length - 1].end())
    for found in _MASKED.finditer(text):
        word = found[0].rstrip(".:")
        pieces = _MASK.split(word)
        if len(pieces) > 1 and any(
            len(piece) > 2 and (piece in secret or piece.endswith(secret[:4])) for piece in pieces
        ):
            _mark(hidden, found.start(), found.start() + len(word))
    for found in re.finditer(rf"\bend(?:s|ing) (?:in|with) \S*{re.escape(secret[-4:])}", text):
        _mark(hidden, *found.span())


def scrubbed(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with `***` for secrets and all that is shaped like a key, to be shown or kept.

    `secrets` (and the environment's) are found whole or in part from 8 characters on, as they are,
    escaped, in hex and in base64, and where the middle is masked (`sk-***abcd`). One of 4 to 7
    characters is taken out as a whole word, a shorter one not at all.
    """
    hidden = [False] * len(text)
    for secret in {*secrets, *kept_in_environment()} - {""}:
        _mark_secret(text, secret, hidden)
    for pattern in (_KEYS, _USER_INFO, _QUERY, _HEADER):
        for found in pattern.finditer(text):
            named = [name for name, value in found.groupdict().items() if value]
            _mark(hidden, *found.span(named[0] if named else 0))
    pieces, at = [], 0
    while at < len(text):
        end = at
        while end < len(text) and hidden[end] == hidden[at]:
            end += 1
        pieces.append("***" if hidden[at] else text[at:end])
        at = end
    return "".join(pieces)
