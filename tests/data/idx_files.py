"""Small IDX files that stand for MNIST's, and a mirror on this machine that fails in every way."""

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from pontryagin.run.data.catalog import IdxFile, ImageSet

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
         "t10k-labels-idx1-ubyte")
SAMPLES = 300


def idx(values: torch.Tensor) -> bytes:
    """As an IDX file of unsigned bytes."""
    header = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.to(torch.uint8).numpy().tobytes()


def contents() -> dict[str, bytes]:
    """The four files of a small data set: random, so that gzip does not make them much smaller."""
    generator = torch.Generator().manual_seed(0)
    shapes = {name: (SAMPLES, 28, 28) if "images" in name else (SAMPLES,) for name in NAMES}
    return {name: idx(torch.randint(0, 255 if "images" in name else 10, shape, generator=generator))
            for name, shape in shapes.items()}


def small_set(*mirrors: str) -> ImageSet:
    """The catalog's entry of `contents`."""
    files = tuple(IdxFile(name, (SAMPLES, 28, 28) if "images" in name else (SAMPLES,),
                          hashlib.md5(content, usedforsecurity=False).hexdigest())
                  for name, content in contents().items())
    return ImageSet("mnist", files, mirrors, package="a package that holds the files")


def write_set(folder, packed: bool = True) -> None:
    """All four into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents().items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


class Mirror:
    """Serves `contents`, gzipped. faults: one is used up by each request, by name of a method of the handler.

    requests: (path, Range header) of each request. ranges: whether ranges are understood.
    """

    def __init__(self) -> None:
        self.files = {f"/{name}.gz": gzip.compress(content, mtime=0) for name, content in contents().items()}
        self.bomb = gzip.compress(contents()[NAMES[0]] + bytes(50_000_000))
        self.faults: list[str] = []
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
        self.address = ""


@contextmanager
def serving() -> Iterator[Mirror]:
    """A mirror on a free port of this machine."""
    mirror = Mirror()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"mirror": mirror}))
    mirror.address = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.mirror.requests.append((self.path, wanted))
        content = self.mirror.files.get(self.path)
        fault = self.mirror.faults.pop(0) if self.mirror.faults else ""
        if content is None or fault == "missing":
            self.send_error(404)
        elif fault == "busy":
            self.send_error(503)
        elif fault == "silent":
            threading.Event().wait(0.6)
        elif fault == "wrong":
            self.send(gzip.compress(idx(torch.zeros(SAMPLES, 28, 28))), 0)
        elif fault == "huge":
            self.send(bytes(10_000_000), 0, length=None)
        elif fault == "promises huge":
            self.send(bytes(10), 0, length=10_000_000_000)
        elif fault == "bomb":
            self.send(self.mirror.bomb, 0)
        else:
            start = int(wanted.split("=")[1].rstrip("-")) if wanted and self.mirror.ranges else 0
            if start >= len(content):
                self.send_error(416)
            else:
                self.send(content[start:len(content) // 2] if fault == "drop" else content[start:], start,
                          len(content) - start, len(content))

    def send(self, part: bytes, start: int, length: int | None = -1, total: int = 0) -> None:
        self.send_response(206 if start else 200)
        if length is not None:
            self.send_header("Content-Length", str(len(part) if length == -1 else length))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(part)
