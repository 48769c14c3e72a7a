"""One file from one address, over a network that may fail at any moment."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from socket import EAI_NONAME, gaierror
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pontryagin.run.progress import Advance

Watch = Callable[[int], AbstractContextManager[Advance]]
"""Makes the progress of so many KiB."""

_BLOCK = 1 << 16
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """timeout: seconds without an answer, or at less than `slowest` bytes a second, until an attempt is given
    up.

    attempts: those that got less than 64 KiB further, until the address is; pause: seconds before the second,
    doubled each time.
    """

    timeout: float = 20.0
    slowest: float = 1024.0
    attempts: int = 3
    pause: float = 1.0


class DownloadError(Exception):
    """An address that does not give the file, and why."""


def is_address(url: str) -> bool:
    """Of a place in the web: http or https, and a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


def download(url: str, file: IO[bytes], largest: int, patience: Patience, watch: Watch) -> None:
    """Append to `file` what it lacks of the content at `url`; what it holds already is not fetched again if
    the server can.

    Raises DownloadError when the address cannot be had or sends more than `largest` bytes; what has arrived
    stays in the file.
    """
    if not is_address(url):
        raise DownloadError(f"{url}: expected an address that begins with http:// or https://")
    failures = 0
    while True:
        before = file.seek(0, os.SEEK_END)
        try:
            _attempt(url, file, largest, patience, watch)
        except HTTPError as error:
            if error.code == 416 and before:  # nothing is left to send
                return
            if error.code not in _RETRIED:
                raise DownloadError(f"{url}: {error.code} {error.reason}") from error
            reason = f"{error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, URLError) else error
            reason = str(cause) or type(cause).__name__
            if isinstance(cause, gaierror) and cause.errno == EAI_NONAME:
                raise DownloadError(f"{url}: {reason}") from error
        else:
            return
        failures = failures + 1 if file.seek(0, os.SEEK_END) < before + _BLOCK else 0
        if failures >= patience.attempts:
            raise DownloadError(f"{url}: {reason}, after {failures} attempts")
        time.sleep(patience.pause * 2 ** max(0, failures - 1))


def _attempt(url: str, file: IO[bytes], largest: int, patience: Patience, watch: Watch) -> None:
    held = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "pontryagin",
               "Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
    with urlopen(Request(url, headers=headers), timeout=patience.timeout) as answer:
        if held and not _continues(answer, held):
            held = 0
            file.truncate(0)
        total = None if answer.length is None else held + answer.length
        if total is not None and total > largest:
            raise DownloadError(f"{url}: sends {total} bytes, expected at most {largest}")
        with watch((total or largest) // 1024) as advance:
            _receive(url, answer, file, largest, patience, advance)
    if total is not None and file.tell() < total:
        raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")


def _receive(url: str, answer: HTTPResponse, file: IO[bytes], largest: int, patience: Patience,
             advance: Advance) -> None:
    file.seek(0, os.SEEK_END)
    began, received = time.monotonic(), 0
    while block := answer.read1(_BLOCK):
        received += len(block)
        file.write(block)
        if file.tell() > largest:
            file.truncate(0)
            raise DownloadError(f"{url}: sends more than the {largest} bytes that were expected")
        seconds = time.monotonic() - began
        if seconds > patience.timeout and received < patience.slowest * seconds:
            raise TimeoutError(f"only {received} bytes in {seconds:.0f} s")
        advance(file.tell() // 1024, None)


def _continues(answer: HTTPResponse, held: int) -> bool:
    return answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {held}-")
