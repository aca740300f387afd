"""A headless Chromium, spoken to over a pipe in its own protocol, so that a test sees what a reader of a page sees."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["CHROMIUM", "Page", "browser"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_PATIENCE_S = 60.0


class Page:
    """One tab: what it asked for, what it complained of, and what a script finds in it."""

    def __init__(self, commands: int, answers: int) -> None:
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self._commands, self._answers, self._rest, self._number, self._session = commands, answers, b"", 0, ""
        os.set_blocking(answers, False)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def show(
        self, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False, paper: bool = False
    ) -> None:
        """Load the file anew, in a window of this size, and forget what an earlier one did."""
        self.requested, self.complaints = [], []
        media = "print" if paper else "screen"
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", media=media, features=scheme)
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._call("Page.navigate", url=file.resolve().as_uri())
        until = time.monotonic() + _PATIENCE_S
        while self.run("document.readyState + location.protocol") != "completefile:":
            if time.monotonic() > until:
                raise TimeoutError(f"{file} was not loaded")
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of a script's last expression."""
        done = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"].get("description", "the script raised"))
        return done["result"].get("value")

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """Save the page, or what is to be seen of it without scrolling, as PNG."""
        data = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, fromSurface=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def headings(self) -> list[tuple[int, str]]:
        """Level and text of what assistive technology takes for headings."""
        found = []
        for node in self._call("Accessibility.getFullAXTree")["nodes"]:
            if node.get("role", {}).get("value") == "heading":
                level = next(p["value"]["value"] for p in node["properties"] if p["name"] == "level")
                found.append((level, node.get("name", {}).get("value", "")))
        return found

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            for answer in self._read():
                if answer.get("id") == self._number:
                    if "error" in answer:
                        raise RuntimeError(f"{method}: {answer['error']}")
                    result: dict[str, Any] = answer["result"]
                    return result
                self._note(answer)
            time.sleep(0.005)
        raise TimeoutError(f"{method} was not answered")

    def _note(self, event: dict[str, Any]) -> None:
        details = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(details["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(details["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(details))

    def _read(self) -> Iterator[dict[str, Any]]:
        with suppress(BlockingIOError):
            while piece := os.read(self._answers, 1 << 20):
                self._rest += piece
        while b"\0" in self._rest:
            text, _, self._rest = self._rest.partition(b"\0")
            yield json.loads(text)


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a Chromium of its own, with nothing of anybody's profile, for the time of the block."""
    assert CHROMIUM is not None
    to_it, commands = os.pipe()
    answers, from_it = os.pipe()
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        options += ["--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # the protocol is spoken on the descriptors 3 and 4, whatever numbers they have here
        plumbing = f"exec 3<&{to_it} 4>&{from_it}; exec " + '"$0" "$@"'
        process = subprocess.Popen(
            ["bash", "-c", plumbing, CHROMIUM, *options, "about:blank"],
            pass_fds=(to_it, from_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(from_it)
        try:
            yield Page(commands, answers)
        finally:
            process.kill()
            process.wait()
            os.close(commands)
            os.close(answers)
            time.sleep(0.2)  # its children still write to the profile
            shutil.rmtree(profile, ignore_errors=True)
            Path(profile).mkdir(exist_ok=True)
