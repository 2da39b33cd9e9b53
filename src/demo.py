"""Try the release in a browser: python -m src.demo

Puts models/release and the runtime of its page together in a folder, which is what a static Space of the hub takes, and
serves that folder to this machine alone until it is interrupted. `make demo` fetches the runtime first.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.demo")

import contextlib
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pydantic import Field

from src.common.files import atomic_write
from src.common.schema import Section
from src.runtime.errors import InputError

RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")

# The system's own table, which Python asks first, may lack these; a browser runs no module of another type.
TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".md": "text/plain; charset=utf-8",
}


class Options(Section):
    release: Path = Field(Path("models/release"), description="the folder that the stage release wrote")
    runtime: Path = Field(
        Path("bench/web/node_modules/onnxruntime-web"), description="the npm package onnxruntime-web, unpacked"
    )
    out: Path = Field(Path("models/demo"), description="the folder to write; one that demo wrote is replaced")
    port: int = Field(8000, ge=0, le=65535, description="on 127.0.0.1; 0: one that is free")


def main(release, runtime, out, port):
    folder(release, runtime, out)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Files, directory=str(out)))
    except OSError as error:
        raise InputError(f"--port: {port} cannot be used ({error.strerror}); give another, or 0") from None
    with server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def folder(release: Path, runtime: Path, out: Path) -> None:
    """Write `out`: a release with, in its folder runtime, what its page runs the model by.

    runtime: the npm package onnxruntime-web. Raises InputError when either is not there, or `out` is and has other files.
    """
    if not (release / "index.html").is_file():
        raise InputError(f"{release}: no index.html in it; run the stage release")
    for name in RUNTIME:
        if not (runtime / "dist" / name).is_file():
            raise InputError(f"{runtime / 'dist' / name}: no such file; make demo fetches it with npm")
    with atomic_write(out) as new:
        shutil.copytree(release, new)
        (new / "runtime").mkdir(exist_ok=True)
        for name in RUNTIME:
            shutil.copyfile(runtime / "dist" / name, new / "runtime" / name)
        shutil.copyfile(runtime / "package.json", new / "runtime/package.json")  # version, licence and where it is from


class _Files(SimpleHTTPRequestHandler):
    def guess_type(self, path):
        return TYPES.get(Path(path).suffix) or super().guess_type(path)

    def end_headers(self):
        self.send_header("Cache-Control", "no-cache")  # a release may be made anew behind the page
        super().end_headers()

    def log_message(self, *arguments):
        pass
