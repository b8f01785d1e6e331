"""`OutputFolder`: a run's sole hold on the folder that it writes to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from predilect.encoding import require_path
from predilect.processes import processes
from predilect.runs.files import PARTIAL, read_json, write_json
from predilect.runs.fingerprints import differences

FILE = "run.json"
_LOCK = ".run.lock"
_WORKERS_END = (
    10.0  # data-loader workers of a killed run notice within five seconds that it is gone, and hold its lock
)
_WAYS = {
    "command": ("--resume", "--output-dir", "--overwrite"),
    "call": ("resume=True", "output_dir", "overwrite=True"),
}


class OutputFolder:
    """A run's sole hold on its output folder, as a context; `claim` says what the run is.

    The folder's `run.json` holds what the run's results depend on, by content. A folder is

    - new: it does not exist, is empty, or holds nothing but the `run.json` of a run that failed at once;
    - resumed: `resume`, and it holds the same run;
    - overwritten: `overwrite`, and it holds a run of the same kind, which is removed;
    - refused otherwise. What is not a run's own is never removed.

    While the context is open no other process enters: of two runs started in the same instant one runs and the other
    is refused. The lock is the operating system's (`filelock`), so a killed run leaves none. In a distributed run the
    main process decides, and all of them go on or raise together.

    Args:
        folder: the output folder; made if it is not there.
        kind: of run, such as "leaderboard": the name by which its folders are known.
        resume: go on with the run in the folder.
        overwrite: remove the run in the folder.
        ways: whose words messages use for what can be done, a command's flags or a call's arguments.

    Raises:
        ValueError: its path cannot be written in this locale; on entry, the folder is a file, in use by another
            process, or holds what may neither be resumed nor removed; from `claim`, it holds another run.

    Examples:
        >>> def train(folder, options, data, fingerprint):
        ...     with OutputFolder(folder, "train", resume=True) as output:
        ...         output.claim({"options": options, "data": fingerprint(data)})
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        *,
        resume: bool = False,
        overwrite: bool = False,
        ways: Literal["command", "call"] = "command",
    ) -> None:
        if resume and overwrite:
            raise ValueError(f"resume keeps the run in {folder} and overwrite throws it away: choose one")
        require_path(folder)
        self.folder, self.kind, self.resume, self.overwrite = folder, kind, resume, overwrite
        self._ways = _WAYS[ways]
        self._lock: Any = None
        self._made = False

    def __enter__(self) -> Self:
        try:
            on_main_process(self._enter)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def claim(self, run: Mapping[str, Any], *, about: Mapping[str, Any] | None = None) -> None:
        """Write down what the run is, or check that the run in the folder is the same.

        Args:
            run: all that its results depend on, as JSON holds it.
            about: what is kept beside it without being compared.

        Raises:
            ValueError: the folder holds a run with other content; says what differs.
        """
        on_main_process(lambda: self._claim(run, about or {}))

    def _enter(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"the output folder {self.folder} is a file: choose another {self._ways[1]}")
        self._lock_folder()
        resume, output_dir, overwrite = self._ways
        if not _in_use(self.folder):
            return
        kept = read_json(self.folder / FILE)
        kind = kept.get("kind") if isinstance(kept, dict) else None
        if kind != self.kind:
            what = f"holds a run of {kind}" if kind else "is not empty"
            way_out = f"choose another {output_dir}"
            if self.resume:
                way_out = f"there is nothing to {resume}, {way_out}"
            if self.overwrite:
                way_out = f"{overwrite} leaves it alone, remove it yourself or {way_out}"
            raise ValueError(f"{self.folder} {what} and was not written by a run of {self.kind}: {way_out}")
        if not self.resume and not self.overwrite:
            raise ValueError(
                f"{self.folder} is not empty: continue that run with {resume}, choose another {output_dir}, or throw "
                f"it away with {overwrite}"
            )

    def _lock_folder(self) -> None:
        lock = FileLock(self.folder / _LOCK, timeout=_WORKERS_END if self.resume else 0)
        while self._lock is None:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._made = True
            try:
                lock.acquire()
                self._lock = lock
            except FileNotFoundError:  # another run made the folder, was refused, and took it away
                continue
            except Timeout:
                raise ValueError(
                    f"another run is at work in {self.folder}: wait until it ends, or choose another {self._ways[1]}"
                ) from None

    def _claim(self, run: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        path = self.folder / FILE
        if _in_use(self.folder):
            if self.overwrite:
                self._empty(path)
            elif words := differences((read_json(path) or {}).get("run", {}), run):
                _, output_dir, overwrite = self._ways
                raise ValueError(
                    f"{self.folder} holds another run ({'; '.join(words)}), which cannot be resumed with these "
                    f"options: restore them, choose another {output_dir}, or throw it away with {overwrite}"
                )
        for left in self.folder.rglob(f".*{PARTIAL}"):  # of a killed run
            _remove(left)
        write_json(path, {"kind": self.kind, "run": run, **({"about": about} if about else {})})

    def _empty(self, path: Path) -> None:
        """Remove the run; killed on the way, it leaves a folder that no run is resumed in."""
        write_json(path, {"kind": self.kind, "run": {"removed": True}})
        for left in self.folder.iterdir():
            if left.name not in (FILE, _LOCK):
                _remove(left)

    def _leave(self) -> None:
        if self._lock is None:
            return
        with suppress(OSError):  # while it is held, so that whoever waits for it sees that it is gone, and asks anew
            (self.folder / _LOCK).unlink()
        self._lock.release()
        self._lock = None
        if self._made:
            with suppress(OSError):  # a folder that the run never came to write to
                self.folder.rmdir()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is removed at the end; all processes of a distributed run share the main process's."""
    state = processes()
    with tempfile.TemporaryDirectory() as own:
        place = [own]
        if state.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(place)
        yield Path(place[0])
        state.wait_for_everyone()


def on_main_process(act: Callable[[], None]) -> None:
    """Let the main process act while the others wait; what it raises as ValueError, all raise."""
    state = processes()
    if state.num_processes == 1:
        act()
        return
    from accelerate.utils import broadcast_object_list

    refusal: list[str | None] = [None]
    if state.is_main_process:
        try:
            act()
        except (ValueError, OSError) as error:
            refusal = [str(error)]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise ValueError(refusal[0])


def _in_use(folder: Path) -> bool:
    """Whether there is anything but a claim; `.nfs*` are files that a network file system has still to remove."""
    names = {path.name for path in folder.iterdir()} - {FILE, _LOCK}
    return any(not name.endswith(PARTIAL) and not name.startswith(".nfs") for name in names)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
