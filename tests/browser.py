"""Headless Chromium, driven through its DevTools protocol over two pipes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time

import pytest

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking "
    "--disable-component-update --disable-extensions --disable-sync --no-first-run --hide-scrollbars "
    "--remote-debugging-pipe"
).split()


def program():
    """The path of Chromium; the test is skipped where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium here to open the page in")
    return path


@contextlib.contextmanager
def opened(profile, url, *options):
    """A `Tab` in a browser of its own at a URL."""
    (there, write), (read, back) = os.pipe(), os.pipe()
    command = f'exec "$@" 3<&{there} 4>&{back}'
    process = subprocess.Popen(
        ["bash", "-c", command, "-", program(), *OPTIONS, f"--user-data-dir={profile}", *options, "about:blank"],
        pass_fds=(there, back),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(there)
    os.close(back)
    with open(write, "wb", buffering=0) as out, open(read, "rb", buffering=0) as answers:
        try:
            tab = Tab(out, answers)
            tab.open(url)
            yield tab
            tab.send("Browser.close")
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
            tab.listener.join()  # the pipe has ended


class Tab:
    """A tab. requests: the URLs that it and its workers asked for; messages: what its console shows, and uncaught errors."""

    def __init__(self, out, answers):
        self.out, self.session, self.number = out, None, 0
        self.requests, self.messages = [], []
        self.answers, self.lock = {}, threading.Lock()
        self.listener = threading.Thread(target=self._listen, args=(answers,), daemon=True)
        self.listener.start()

    def _listen(self, answers):
        content = b""
        while chunk := answers.read(1 << 20):
            *messages, content = (content + chunk).split(b"\0")
            for message in map(json.loads, messages):
                self._heard(message)

    def _heard(self, message):
        method, params = message.get("method"), message.get("params", {})
        if "id" in message:
            self.answers[message["id"]] = message
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(each.get("value")) for each in params["args"]))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.messages.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            self.messages.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Target.attachedToTarget" and params["targetInfo"]["type"] != "page":  # workers, worklets
            for name in ("Network.enable", "Runtime.enable", "Runtime.runIfWaitingForDebugger"):
                self.send(name, session=params["sessionId"])

    def send(self, method, session=None, **params):
        """Send a command; gives its number. The listening thread sends some too."""
        with self.lock:
            self.number += 1
            message = {"id": self.number, "method": method, "params": params}
            if session or self.session:
                message["sessionId"] = session or self.session
            self.out.write(json.dumps(message).encode() + b"\0")
            return message["id"]

    def call(self, method, **params):
        """The result of a command of the protocol."""
        number = self.send(method, **params)
        end = time.monotonic() + 120
        while number not in self.answers:
            assert time.monotonic() < end, f"no answer to {method}"
            time.sleep(0.005)
        answer = self.answers.pop(number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def open(self, url):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def evaluate(self, expression):
        """The value of a JavaScript expression, or of its promise."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression, seconds=60):
        """The value of an expression as soon as it is true; true for an element."""
        end = time.monotonic() + seconds
        found = f"((value) => value instanceof Node || value)({expression})"
        while not (value := self.evaluate(found)):
            assert time.monotonic() < end, (expression, self.messages, self.evaluate("document.body.innerText"))
            time.sleep(0.02)
        return value

    def choose(self, selector, *paths):
        """Give files to an input, as its dialog does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[os.path.abspath(path) for path in paths])

    def press(self, key, code=0, text=""):
        """Press and release a key, such as Tab (9) or Enter (13)."""
        for kind in ("keyDown", "keyUp"):
            about = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **about)

    def shape(self, width, height, dark=False):
        """Set the size of the window, in CSS pixels, and the colours that the user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path):
        """Write the whole page as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
