"""A real headless Chromium, driven by Selenium, in which the tests use the page as people do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.raw import wait_for

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
# A name of another host, as the browser sees it.
OTHER_HOST = "speech.test"
# Nothing may leave this machine.
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    f"--host-resolver-rules=MAP {OTHER_HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--use-fake-device-for-media-stream",
    "--lang=en",
    "--window-size=1000,1200",
]


class Browser:
    """One tab. `microphone` is a WAV file that the fake microphone hears once."""

    def __init__(self, tmp: Path, microphone: Path) -> None:
        # Only here, since a run without the mark `browser` has no Selenium.
        from selenium import webdriver

        self.downloads = tmp / "downloads"
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for flag in _FLAGS:
            options.add_argument(flag)
        options.add_argument(f"--user-data-dir={tmp / 'profile'}")
        options.add_argument(f"--use-file-for-fake-audio-capture={microphone}%noloop")
        service = webdriver.ChromeService(DRIVER, log_output=str(tmp / "driver-log"))
        self.driver: Any = webdriver.Chrome(options, service)
        self.driver.set_script_timeout(30)
        allowed = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.command("Browser.setDownloadBehavior", allowed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def command(self, name: str, arguments: dict[str, Any]) -> Any:
        """One of Chromium's own (https://chromedevtools.github.io/devtools-protocol/)."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def open(self, address: str) -> None:
        self.driver.get("about:blank")
        self.complaints()
        self.driver.get(address)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def button(self, text: str, within: str = "body") -> Any:
        for found in self.driver.find_elements("css selector", f"{within} button"):
            if found.is_displayed() and found.text == text:
                return found
        raise AssertionError(f"no button {text!r} in {self.text(within)!r}")

    def text(self, selector: str = "body") -> str:
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.run(script, selector))

    def wait_for_text(self, text: str, selector: str = "body") -> None:
        try:
            wait_for(text, lambda: text in self.text(selector))
        except AssertionError:
            raise AssertionError(f"no {text!r} in {self.text(selector)!r}") from None

    def drop(self, *paths: Path, onto: str = "#drop") -> None:
        """Drags files from outside the browser onto an element."""
        box = self.one(onto).rect
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": box["x"] + 20, "y": box["y"] + 20, "data": data}
            self.command("Input.dispatchDragEvent", event)

    def download(self, name: str) -> str:
        path = self.downloads / name
        wait_for(name, path.exists)
        text = path.read_text()
        path.unlink()
        return text

    def permit(self, name: str, setting: str) -> None:
        """Sets what a dialog would ask: granted, denied or prompt."""
        self.command("Browser.setPermission", {"permission": {"name": name}, "setting": setting})

    def tab(self) -> None:
        """Presses the Tab key."""
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
            self.command("Input.dispatchKeyEvent", event)

    def complaints(self) -> list[str]:
        """The console's errors and warnings since the last call, also those about the policy."""
        return [json.dumps(entry) for entry in self.driver.get_log("browser")]

    def show(self, width: int, height: int, *, dark: bool = False) -> None:
        """Sets the size of the screen, and the user's choice of colours."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.command("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", {"features": [scheme]})

    def focusable_names(self) -> Sequence[tuple[str, str]]:
        """Role and name of all that can have the focus, as a screen reader gets them."""
        nodes = self.command("Accessibility.getFullAXTree", {})["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if any(
                p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", ())
            )
        ]
