"""A browser that a test drives as a reader would: pages are opened, clicked, typed into and asked.

It is spoken to by Chromium's own protocol over a pipe, so that nothing else has to be installed.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

#: Gives a child the pipe at the numbers where it is looked for, and becomes the browser.
_LAUNCH = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])"""
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")
#: Seconds without a word after which a browser is given up.
PATIENCE = 120
_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync")


class Driven:
    """One page of a browser. What the browser says of errors within the page is an error here."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._read, self._number, self._session = b"", 0, ""
        self._address, self._loaded = "", False
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        made = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = made["sessionId"]
        self._ask("Page.enable")
        self._ask("Network.enable")
        # Formulas are set by MathJax, which takes longer than all else and has its own tests.
        self._ask("Network.setBlockedURLs", urls=["*mathjax*", "http://*", "https://*"])

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        said: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            said["sessionId"] = self._session
        data = json.dumps(said).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                break
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE)
            part = os.read(self._answers, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError("the browser has ended" if ready else "the browser is silent")
            self._read += part
        one, self._read = self._read.split(b"\0", 1)
        said: dict[str, Any] = json.loads(one)
        if said.get("method") == "Page.frameNavigated":
            frame = said["params"]["frame"]
            if "parentId" not in frame:
                self._address, self._loaded = frame["url"], False
        elif said.get("method") == "Page.loadEventFired":
            self._loaded = True
        return said

    def opened(
        self, page: Path, width: int = 1280, *, dark: bool = False, ending: str = ""
    ) -> None:
        """Open a page in a window of a width, in the light or the dark, and wait until it is.

        `ending`: of the address to wait for, where the page at once leads on to another.
        """
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._address = ""
        self._ask("Page.navigate", url=page.as_uri())
        self.arrived(ending or page.as_uri())

    def arrived(self, ending: str) -> None:
        """Wait until a page whose address so ends has been loaded, such as after a click.

        Nothing can be asked in between: what is, stays without an answer.
        """
        while not (self._loaded and self._address.partition("#")[0].endswith(ending)):
            self._next()
        self.said("globalThis.explorable?.ready()")  # what a view draws comes after the page

    def said(self, script: str) -> Any:
        """What an expression of JavaScript is on the page; a promise is waited for."""
        answer = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", details).get("description", str(details)))
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 20) -> Any:
        """Wait until an expression is true, and return it; AssertionError if it never is."""
        end = time.monotonic() + seconds
        while not (found := self.said(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)
        return found

    def clicked(self, selector: str) -> None:
        """Click the first element of a selector in its middle, as with a mouse.

        AssertionError if there is none, or something else lies over it.
        """
        place = self.said(
            f"""(() => {{
              const found = document.querySelector({json.dumps(selector)});
              if (!found) return null;
              found.scrollIntoView({{ block: "center", behavior: "instant" }});
              const box = found.getClientRects()[0];
              if (!box) return null;
              const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
              const top = document.elementFromPoint(x, y);
              const over = found.contains(top) || top?.contains(found);
              return {{ x, y, over }};
            }})()"""
        )
        assert place is not None, f"nothing to click: {selector}"
        assert place["over"], f"something lies over {selector}"
        for kind in ("mousePressed", "mouseReleased"):
            self._ask(
                "Input.dispatchMouseEvent",
                type=kind, x=place["x"], y=place["y"], button="left", clickCount=1,
            )  # fmt: skip

    def pressed(self, key: str) -> None:
        """Press a key, such as Tab or ArrowRight, on whatever has the focus."""
        codes = {
            "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36,
            "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
        }  # fmt: skip
        for kind in ("rawKeyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key],
            )  # fmt: skip

    def pictured(self, target: Path, *, whole: bool = False) -> None:
        """Write what is seen to a PNG, for whoever looks into a failure; `whole`: all the page."""
        import base64

        shot = self._ask("Page.captureScreenshot", captureBeyondViewport=whole)
        target.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def driven(folder: Path) -> Iterator[Driven]:
    """A browser for some pages, with its profile in a folder; skips the test without Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium to open the page with: apt-get install chromium")
    theirs, ours = os.pipe()
    heard, told = os.pipe()
    # Away from 3 and 4, where they are put in the child.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs, told)]
    command = [sys.executable, "-c", _LAUNCH, *map(str, ends), browser, *_OPTIONS, *_QUIET]
    command += [f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe"]
    child = subprocess.Popen(command, pass_fds=ends, stderr=subprocess.DEVNULL)
    for end in (theirs, told, *ends):
        os.close(end)
    try:
        yield Driven(ours, heard)
    finally:
        os.close(ours)  # which ends it
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        os.close(heard)
