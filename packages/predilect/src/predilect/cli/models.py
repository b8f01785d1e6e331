"""Which saved recommender a person means."""

from __future__ import annotations

from pathlib import Path

from predilect.encoding import require_path

DEFAULT = Path("runs/leaderboard")


def find_model(folder: Path) -> Path:
    """The folder of a saved recommender: `folder` itself, or the best model of a leaderboard's output folder.

    Raises:
        FileNotFoundError: neither is there; says how to get one.
        ValueError: a leaderboard in which every model failed.
    """
    from predilect.leaderboard.results import Leaderboard

    require_path(folder)
    if (folder / "method.json").is_file():
        return folder
    if (folder / "recommender" / "method.json").is_file():  # models/<name> of a leaderboard
        return folder / "recommender"
    if not (folder / "results.json").is_file():
        unfinished = (folder / "run.json").is_file()
        way_out = (
            "finish it with --resume" if unfinished else "run `predilect leaderboard` first, or give --model FOLDER"
        )
        what = "an unfinished run" if unfinished else "no saved recommender"
        raise FileNotFoundError(f"there is {what} in {folder}: {way_out}")
    best = Leaderboard.load(folder).best
    if best is None:
        raise ValueError(f"every model of the leaderboard in {folder} failed: there is none to use")
    return folder / "models" / best.name / "recommender"
