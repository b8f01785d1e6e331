"""Python processes that begin with the libraries imported: forked off a server that imports them once.

A process costs its own work then, and not the ten seconds in which torch, transformers and datasets are imported. The
workspace's own packages are not imported before: each process imports them, as a fresh one does.

    process, or a test  ->  server (libraries; no threads)  ->  keeper (waits for it)  ->  the process

In such a process `sys.executable` is a script that starts further ones in the same way: launchers such as `torchrun`
use it. Not for what is about the start of Python itself: which modules an import loads, or the order of sets (all
processes have the server's hash seed, which is not that of pytest).
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess
from typing import IO, Any

LIBRARIES = (
    "torch", "torch.distributed.tensor", "torch._dynamo", "transformers.trainer", "transformers.models.llama", "peft",
    "trl", "datasets", "pyarrow.parquet", "pandas", "scipy.optimize", "scipy.stats", "safetensors.torch", "rich.table",
    "rich.progress", "typer.main", "yaml",
)  # fmt: skip
_SERVER = "FORKED_SERVER"  # environment: its address


class Process:
    """A process, with the part of `subprocess.Popen` that tests use; text only.

    Args:
        arguments: of Python: `-m module ...`, `-c code ...`, or the path of a script and what follows it.
        cwd: folder to run in.
        env: the environment; None: this process's.
        stdin: None (this process's), PIPE, DEVNULL or an open file; so are `stdout` and `stderr`.
        stderr: also STDOUT.
        start_new_session: begin a session, and so a group of processes, of its own.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        start_new_session: bool = False,
    ) -> None:
        self.args = [str(a) for a in arguments]
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self.returncode: int | None = None
        opened: list[int] = []
        given = 0
        if stdin == PIPE:
            given, end = os.pipe()
            self.stdin = open(end, "w", encoding="utf-8")  # noqa: SIM115
            opened.append(given)
        elif stdin is not None:
            given = _descriptor(stdin, os.O_RDONLY, opened)
        told = 1
        if stdout == PIPE:
            end, told = os.pipe()
            self.stdout = open(end, encoding="utf-8")  # noqa: SIM115
            opened.append(told)
        elif stdout is not None:
            told = _descriptor(stdout, os.O_WRONLY, opened)
        wrong = 2 if stderr is None else told if stderr == STDOUT else _descriptor(stderr, os.O_WRONLY, opened)
        status, tells = os.pipe()
        opened.append(tells)
        environment = {**(os.environ if env is None else env), _SERVER: _server()}
        request = [self.args, str(cwd or Path.cwd()), environment, start_new_session]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.connect(environment[_SERVER])
            socket.send_fds(channel, [json.dumps(request).encode()], [given, told, wrong, tells])
        for descriptor in opened:
            os.close(descriptor)
        self._status = open(status, encoding="utf-8")  # noqa: SIM115
        self.pid = int(self._status.readline())

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None: it still runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        found = self.poll()
        assert found is not None
        return found

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def run(
    arguments: Sequence[object],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",
    check: bool = False,
    timeout: float = 1500,
) -> CompletedProcess[str]:
    """Run a process to its end, and keep what it prints, as `subprocess.run(..., capture_output=True, text=True)`."""
    with ExitStack() as stack:
        given, told, wrong = (stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(3))
        given.write(input)
        given.seek(0)
        process = Process(arguments, cwd=cwd, env=env, stdin=given, stdout=told, stderr=wrong)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        told.seek(0)
        wrong.seek(0)
        done = CompletedProcess(process.args, status, told.read(), wrong.read())
    if check:
        assert status == 0, f"{' '.join(process.args)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def _descriptor(file: int | IO[Any], mode: int, opened: list[int]) -> int:
    if file == DEVNULL:
        opened.append(os.open(os.devnull, mode))
        return opened[-1]
    return file if isinstance(file, int) else file.fileno()


@cache
def _server() -> str:
    """The address of the server, which ends when the process does that asked first."""
    if _SERVER in os.environ:
        return os.environ[_SERVER]
    folder = Path(tempfile.mkdtemp(prefix="forked-"))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" "$@"\n')
    python.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, "--serve", folder], stdin=PIPE, stdout=PIPE, text=True)
    assert server.stdout is not None
    server.stdout.readline()  # it listens
    return str(folder / "socket")


def _serve(folder: Path) -> None:
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    for number in (signal.SIGINT, signal.SIGCHLD):  # keepers leave nothing to wait for
        signal.signal(number, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "socket"))
    listener.listen(32)
    print("listening", flush=True)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        with listener.accept()[0] as channel:
            content, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 4)
        if descriptors and not os.fork():
            listener.close()
            sys.executable = str(folder / "python")
            arguments, cwd, env, session = json.loads(content)
            return _keep(arguments, cwd, env, session, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
    shutil.rmtree(folder)


def _keep(arguments: list[str], cwd: str, env: dict[str, str], session: bool, descriptors: list[int]) -> None:
    """Start the process, tell its number, wait, tell its status. It returns in the process alone, at its end."""
    *standard, tells = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        os.close(tells)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _become(arguments, cwd, env, session, standard)
        return
    for descriptor in (0, 1, *standard):
        os.close(descriptor)  # readers see the end when the process ends
    os.write(tells, f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(tells, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(arguments: list[str], cwd: str, env: dict[str, str], session: bool, standard: list[int]) -> None:
    """Be the process that `python ARGUMENTS` would be."""
    import numpy as np

    if session:
        os.setsid()
    for descriptor, own in zip(standard, range(3), strict=True):
        os.dup2(descriptor, own)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", closefd=False)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    np.random.seed()  # of its own, as in a fresh process
    arguments = arguments[arguments[:1] == ["-u"] :]
    first, *others = arguments
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [cwd if first in ("-m", "-c", "-") else str(Path(first).parent), *paths]
    sys.argv = arguments
    if first == "-m":
        sys.argv = others
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif first in ("-c", "-"):
        code = others[0] if first == "-c" else sys.stdin.read()
        sys.argv = [first, *others[first == "-c" :]]
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), module.__dict__)
    else:
        runpy.run_path(first, run_name="__main__")


def _stand_in(arguments: list[str]) -> int:
    """Be `python ARGUMENTS` for whoever started this: its standard files, its status, and its end by a signal."""
    process = Process(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: os.kill(process.pid, number))
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        _serve(Path(sys.argv[2]))
    else:
        sys.exit(_stand_in(sys.argv[1:]))
