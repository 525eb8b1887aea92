# SPDX-License-Identifier: Apache-2.0
"""A real browser for tests: headless Chromium, driven through chromedriver's WebDriver protocol.

    with browser.Browser(tmp_path) as page:
        page.open(path_or_url)
        page.resize(360, 640)
        assert page.run("return document.title") == "..."

Plain HTTP with the standard library: nothing to install but Chromium and its driver (Debian:
`apt-get install chromium chromium-driver`). Without them the test that asks skips.
"""

import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

_BINARIES = ("chromium", "chromium-browser", "google-chrome")
_START_SECONDS = 30.0
_REQUEST_SECONDS = 120.0
# A browser that tests start must not be the one that its user runs, nor talk to anybody.
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # tests in containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
TAB, ENTER, SPACE = "\ue004", "\ue007", " "


def chromium() -> str:
    """The path of the browser's program; the test that calls it skips where there is none."""
    found = next(filter(None, map(shutil.which, _BINARIES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(_BINARIES)} is installed")
    return found


def chromedriver() -> str:
    """The path of the browser's driver; the test that calls it skips where there is none."""
    found = shutil.which("chromedriver")
    if found is None:
        pytest.skip("no browser: chromedriver is not installed")
    return found


class Browser:
    """A browser with one page; a context manager."""

    def __init__(self, folder: str | os.PathLike, width: int = 1280, height: int = 900):
        """Starts the browser.

        Args:
          folder: takes the browser's profile and the driver's log; a fresh one for each test.
          width: of the page, in CSS pixels.
          height: of the page, in CSS pixels.
        """
        binary, driver = chromium(), chromedriver()
        self._folder = pathlib.Path(folder)
        self._log = (self._folder / "chromedriver.log").open("w+")
        self._process = subprocess.Popen(
            [driver, "--port=0"], stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            self._base = f"http://127.0.0.1:{self._port()}"
            self._base += f"/session/{self._start_session(binary)}"
            self.resize(width, height)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        try:
            self._request("DELETE", "")
        finally:
            self.close()

    def close(self) -> None:
        """Ends the driver, which takes the browser with it."""
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def _port(self) -> int:
        """The port that the driver chose, once it says so."""
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            text = pathlib.Path(self._log.name).read_text()
            if match := re.search(r"started successfully on port (\d+)", text):
                return int(match[1])
            time.sleep(0.05)
        raise RuntimeError(
            f"chromedriver did not start: {pathlib.Path(self._log.name).read_text()}"
        )

    def _start_session(self, binary: str) -> str:
        profile = self._folder / "browser_profile"
        options = {"binary": binary, "args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        value = self._request("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        return value["sessionId"]

    def _request(self, method: str, path: str, body: dict | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._base + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise RuntimeError(f"{value['error']}: {value['message']}") from None

    def devtools(self, command: str, **parameters) -> Any:
        """Runs a command of the DevTools protocol, such as 'Page.printToPDF'."""
        return self._request("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, page: str | os.PathLike) -> None:
        """Loads a file or a URL, and waits until it is loaded."""
        url = os.fspath(page)
        if "://" not in url:
            url = pathlib.Path(url).resolve().as_uri()
        self._request("POST", "/url", {"url": url})

    def run(self, script: str, *arguments) -> Any:
        """What a function body in JavaScript returns; `arguments[i]` are what is given here."""
        return self._request("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, seconds: float = 20.0) -> Any:
        """The first value of `run(script)` that is true. Raises TimeoutError after `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.1)
        raise TimeoutError(f"after {seconds:g} s this is still not true: {script}")

    def press(self, *keys: str) -> None:
        """Presses keys one after another, as a person does: 'a', TAB, ENTER, SPACE, ..."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": steps}
        self._request("POST", "/actions", {"actions": [source]})

    def resize(self, width: int, height: int) -> None:
        """Sets the page's size in CSS pixels; also smaller than a window can be."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def prefer(self, media: str = "", **features: str) -> None:
        """Emulates a medium ('print') and preferences, such as prefers_color_scheme='dark'."""
        listed = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.devtools("Emulation.setEmulatedMedia", media=media, features=listed)

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window; 0 is no sideways scrolling."""
        return self.run("const e = document.scrollingElement; return e.scrollWidth - innerWidth")

    def messages(self) -> list[str]:
        """Warnings and errors of the page's console since the last call."""
        entries = self._request("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def screenshot(self, path: str | os.PathLike, full_page: bool = False) -> None:
        """Writes what is seen, or with `full_page` the whole page, as a PNG file."""
        shot = self.devtools(
            "Page.captureScreenshot", format="png", captureBeyondViewport=full_page,
            **({"clip": self._whole_page()} if full_page else {}),
        )  # fmt: skip
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))

    def _whole_page(self) -> dict[str, float]:
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        return {**size, "scale": 1}
