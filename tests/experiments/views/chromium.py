"""Headless Chromium over its DevTools pipe, without a driver: opens a page, asks it with JavaScript, photographs it."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


def executable() -> str | None:
    return next((path for name in EXECUTABLES if (path := shutil.which(name))), None)


class Chromium:
    """One browser with one page. `requests` holds every address that pages have asked for."""

    def __init__(self, profile: Path, *, width: int = 1180, height: int = 900) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to descriptor 4.
        launch = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        window = f"--window-size={width},{height}"
        self._process = subprocess.Popen(
            ["bash", "-c", launch, str(executable()), *_FLAGS, window, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._count, self._session = b"", 0, ""
        self.requests: list[str] = []
        self.messages: list[str] = []
        target = self.command("Target.createTarget", url="about:blank")
        attached = self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, *, timeout: float = 60.0, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        if event.get("method") == "Runtime.exceptionThrown":
            self.messages.append(event["params"]["exceptionDetails"]["text"])

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("Chromium does not answer" if not ready else "Chromium has ended")
            self._buffer += chunk
        first, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(first)

    def open(self, url: str) -> None:
        self.command("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def ask(self, expression: str) -> Any:
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", expression))
        return result["result"].get("value")

    def wait_for(self, condition: str, *, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while not self.ask(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{condition} did not come true; the page says: {self.ask('document.body.innerText')[:2000]}"
                )
            time.sleep(0.2)

    def emulate(self, **features: str) -> None:
        """Media features such as prefers-color-scheme; `media` is screen or print."""
        media = features.pop("media", "screen")
        pairs = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.command("Emulation.setEmulatedMedia", media=media, features=pairs)

    def photograph(self, path: Path) -> Path:
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def print_pdf(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self.command("Page.printToPDF", printBackground=True)["data"]))
        return path

    def close(self) -> None:
        try:
            self._session = ""
            self.command("Browser.close", timeout=10)
        except (OSError, RuntimeError, TimeoutError):
            self._process.kill()
        self._process.wait(timeout=20)
        os.close(self._read)
        os.close(self._write)
