"""Every package installs on its own from its wheel, imports, and runs its README's example."""

from __future__ import annotations

import shutil
import subprocess
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support import REPOSITORY, Member, code_blocks, members, run

pytestmark = pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on the PATH: pip install uv")
each_member = pytest.mark.parametrize("member", members(), ids=lambda m: m.name)


def wheel_of(member: Member, wheels: Path) -> Path:
    (wheel,) = wheels.glob(f"{member.import_name}-{member.version}-*.whl")
    return wheel


def run_readme(member: Member, python: Path, folder: Path, compiled: dict[str, str]) -> None:
    """Import the package and run its README's examples outside the repository."""
    run(python, "-c", f"import {member.import_name} as m; print(m.__version__)", cwd=folder, **compiled)
    blocks = code_blocks(member.folder / "README.md", "python")
    assert blocks, f"the README of {member.name} has no Python example"
    for number, block in enumerate(blocks):
        script = folder / f"readme_{number}.py"
        script.write_text(block)
        assert run(python, script, cwd=folder, **compiled).strip(), (
            f"example {number} of {member.name} printed nothing"
        )


@each_member
def test_wheel_holds_what_users_need(member: Member, wheels: Path) -> None:
    names = zipfile.ZipFile(wheel_of(member, wheels)).namelist()
    assert f"{member.import_name}/py.typed" in names
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert not [n for n in names if "test" in Path(n).parts or n.endswith((".pkl", ".pt"))]


@each_member
def test_siblings_are_required_as_ranges(member: Member) -> None:
    workspace = {m.name for m in members()}
    for requirement in member.requirements:
        if requirement.name in workspace:
            assert {s.operator for s in requirement.specifier} == {">=", "<"}, f"{requirement} needs a floor and a cap"


@each_member
def test_wheel_installs_alone_and_runs_its_readme(
    member: Member,
    wheels: Path,
    locked: Path,
    environment: Callable[..., Path],
    compiled: dict[str, str],
    tmp_path: Path,
) -> None:
    python = environment()
    # fmt: off
    run("uv", "pip", "install", "--quiet", "--python", python, "--find-links", wheels, "--constraints", locked,
        wheel_of(member, wheels), cwd=tmp_path)
    # fmt: on
    listed = run("uv", "pip", "list", "--python", python, "--format", "freeze", cwd=tmp_path)
    installed = {line.split("==")[0] for line in listed.splitlines()}
    assert installed & {m.name for m in members()} == {member.name} | member.siblings
    run_readme(member, python, tmp_path, compiled)


@pytest.mark.slow
def test_core_installs_by_plain_pip(wheels: Path, tmp_path: Path) -> None:
    core = next(m for m in members() if m.name == "predilect")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    # fmt: off
    run(python, "-m", "pip", "install", "--quiet", "--find-links", wheels, f"{core.name}[plots]",
        cwd=tmp_path)
    # fmt: on
    run(python, "-m", "pip", "check", cwd=tmp_path)
    run_readme(core, python, tmp_path, {})


def test_installs_from_a_git_subdirectory(locked: Path, tmp_path: Path) -> None:
    """Metadata only: the same environment was built from the wheel above."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git clone")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("the clone has no commit")
    url = f"git+{REPOSITORY.as_uri()}@{head.stdout.strip()}#subdirectory=packages/predilect"
    target = tmp_path / "site"
    run("uv", "pip", "install", "--quiet", "--no-deps", "--target", target, f"predilect @ {url}", cwd=tmp_path)
    assert (target / "predilect" / "py.typed").is_file()
