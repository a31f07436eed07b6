"""Nothing connects to anywhere: watched where programs call the C library, so dependencies in C are seen too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from loralet.runtime import NO_TELEMETRY

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None, reason="needs Linux and a C compiler, to watch the C library"
)
LIMIT = 300
"""Seconds for one command; a busy machine needs a minute."""

WATCH = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static void note(const char *what, const char *detail) {
  FILE *file = fopen(getenv("WATCHED"), "a");
  if (file) fprintf(file, "%s %s\\n", what, detail), fclose(file);
}
static int outside(const struct sockaddr *a) { return a && (a->sa_family == AF_INET || a->sa_family == AF_INET6); }

int connect(int fd, const struct sockaddr *address, socklen_t size) {
  if (outside(address)) note("connect", "");
  return ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect"))(fd, address, size);
}
ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *address, socklen_t size) {
  if (outside(address)) note("sendto", "");
  return ((ssize_t (*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "sendto"))(
      fd, data, n, flags, address, size);
}
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  note("getaddrinfo", name ? name : "");
  return ((int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(
      RTLD_NEXT, "getaddrinfo"))(name, service, hints, found);
}
"""


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that writes each connection and each look-up of a name to the file of the variable WATCHED."""
    folder = tmp_path_factory.mktemp("watch")
    (folder / "watch.c").write_text(WATCH)
    command = [str(COMPILER), "-shared", "-fPIC", "-o", str(folder / "watch.so"), str(folder / "watch.c"), "-ldl"]
    subprocess.run(command, check=True)
    return folder / "watch.so"


def run(watch: Path, place: Path, *command: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run Python in a new home; returns the process and what it did on the network."""
    home = place / "home"
    home.mkdir(exist_ok=True)
    (place / "watched").unlink(missing_ok=True)
    dropped = (*NO_TELEMETRY, "LORALET_CACHE", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE")
    kept: Mapping[str, str] = {name: value for name, value in os.environ.items() if name not in dropped}
    own = {"HOME": str(home), "LD_PRELOAD": str(watch), "WATCHED": str(place / "watched")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=place, env={**kept, **own, **variables}, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    return done, (place / "watched").read_text() if (place / "watched").exists() else ""


def test_a_connection_is_seen(watch: Path, tmp_path: Path) -> None:
    code = "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass"
    _, seen = run(watch, tmp_path, "-c", code)
    assert "getaddrinfo 127.0.0.1" in seen
    assert "connect" in seen


SCRIPT = """
import json, sys
from loralet.cli import main
for arguments in json.loads(sys.argv[1]):
    assert main(arguments) == 0, arguments
"""


def test_no_command_contacts_anything(watch: Path, tmp_path: Path) -> None:
    """Bundled and local work, with exports by onnxruntime, which sends usage data unless it is told not to."""
    commands = [
        ["train", "--steps", "60", "--lr", "3e-3", "--folds", "0", "--rank", "2", "--out", "run", "--quiet"],
        ["predict", "run", "a text"],
        ["evaluate", "run"],
        ["show", "run"],
        ["report", "run"],
        ["inspect", "run", "tiny-en", "news-mini"],
        ["export", "run", "--to", "onnx", "--int8", "--out", "onnx"],
        ["export", "run", "--to", "hf", "--out", "hf"],
        ["push", "run", "me/tickets", "--dry-run"],
    ]
    done, seen = run(watch, tmp_path, "-c", SCRIPT, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    assert seen == ""
    written = {path.relative_to(tmp_path / "home").parts[:2] for path in (tmp_path / "home").rglob("*")}
    assert not [parts for parts in written if "device" in "/".join(parts).lower() or "microsoft" in parts[-1].lower()]


def test_offline_mode_makes_no_request(watch: Path, tmp_path: Path) -> None:
    arguments = ["train", "--model", "some/model", "--steps", "1"]
    done, seen = run(watch, tmp_path, "-m", "loralet", *arguments, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE" in done.stderr
    assert seen == ""
    closed = "http://127.0.0.1:9"
    _, seen = run(watch, tmp_path, "-m", "loralet", *arguments, HF_ENDPOINT=closed)
    assert "connect" in seen  # without it, there is a request
