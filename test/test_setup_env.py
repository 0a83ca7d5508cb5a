"""`make setup`: what it does again when, what it says when something is missing, what it keeps out."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tools" / "setup_env.py"


@pytest.fixture(scope="module")
def env() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_env", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["setup_env"] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "messages").mkdir()
    (tmp_path / "messages" / "Box.msg").write_text("float32 x\n")
    (tmp_path / "setup.py").write_text("setup()\n")
    interpreter = tmp_path / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(sys.executable)
    (tmp_path / ".venv" / "pyvenv.cfg").touch()
    return tmp_path


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def fake_python(folder: Path, name: str, version: tuple[int, int], headers: bool = True, venv: bool = True) -> None:
    """Answers as another Python of that version would."""
    answer = f"[[{version[0]}, {version[1]}], {str(headers).lower()}, {str(venv).lower()}]"
    program(folder, name, f"echo '{answer}'")


def steps(env: ModuleType, done: list[str]) -> tuple:
    return tuple(
        env.Step(name, name, sources, lambda root, venv, name=name: done.append(name))
        for name, sources in {"packages": ("setup.py",), "messages": ("messages",)}.items()
    )


def test_only_what_changed_is_done_again(env: ModuleType, project: Path) -> None:
    done: list[str] = []
    run = lambda: env.prepare(project, project / ".venv", steps(env, done))  # noqa: E731
    run()
    assert done == ["packages", "messages"]
    run()
    assert done == ["packages", "messages"], "nothing changed"
    (project / "messages" / "Box.msg").write_text("float32 x\nfloat32 y\n")
    run()
    assert done[2:] == ["messages"]
    (project / "messages" / "New.msg").write_text("float32 z\n")
    run()
    assert done[3:] == ["messages"]
    (project / "messages" / "New.msg").rename(project / "messages" / "Newer.msg")
    run()
    assert done[4:] == ["messages"]
    (project / "setup.py").write_text("setup(1)\n")
    run()
    assert done[5:] == ["packages"]


def test_an_environment_that_was_moved_is_completed_again(env: ModuleType, project: Path) -> None:
    done: list[str] = []
    env.prepare(project, project / ".venv", steps(env, done))
    moved = (project / ".venv").rename(project / "elsewhere")
    env.prepare(project, moved, steps(env, done))
    assert done == ["packages", "messages"] * 2


def test_a_failed_step_is_not_taken_for_done(env: ModuleType, project: Path) -> None:
    def fail(root: Path, venv: Path) -> None:
        env.run(venv, "false")

    step = env.Step("packages", "packages", ("setup.py",), fail)
    for _ in range(2):
        with pytest.raises(env.SetupError, match="failed with exit code 1: false"):
            env.prepare(project, project / ".venv", (step,))


def test_two_at_once_do_the_work_once(env: ModuleType, project: Path) -> None:
    done: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def slow(root: Path, venv: Path) -> None:
        done.append("packages")
        entered.set()
        assert leave.wait(20)

    prepare = lambda: env.prepare(project, project / ".venv", (env.Step("packages", "", ("setup.py",), slow),))  # noqa: E731
    first, second = (threading.Thread(target=prepare) for _ in range(2))
    first.start()
    assert entered.wait(20)
    second.start()
    leave.set()
    for thread in (first, second):
        thread.join(20)
        assert not thread.is_alive()
    assert done == ["packages"]


def test_the_end_of_a_log_is_shown_on_failure(env: ModuleType, project: Path) -> None:
    with pytest.raises(env.SetupError, match="no such message") as error:
        env.run(project / ".venv", "sh", "-c", "echo no such message; exit 3", log=project / "logs" / "build.log")
    assert "exit code 3" in str(error.value) and "build.log" in str(error.value)


def test_first_suitable_python(env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    for tool in ("g++", "make"):
        program(folder, tool, "")
    fake_python(folder, "python3", (3, 14))
    program(folder, "python3.13", "echo 'pyenv: command not found' >&2; exit 127")
    fake_python(folder, "python3.12", (3, 12), headers=False)
    fake_python(folder, "python3.11", (3, 11))
    monkeypatch.setenv("PATH", str(folder))
    assert env.find_python(["python3", "python3.13", "python3.12", "python3.11", "python3.10"]).version == (3, 11)


@pytest.mark.parametrize(
    ("manager", "tools", "python", "missing", "command"),
    [
        (
            "apt-get",
            (),
            dict(version=(3, 12), headers=False, venv=False),
            "missing for python3.12: g++, make, headers, venv",
            "sudo apt-get install g++ make python3.12-dev python3.12-venv",
        ),
        (
            "dnf",
            ("make",),
            dict(version=(3, 11), headers=False),
            "missing for python3.11: g++, headers",
            "sudo dnf install gcc-c++ python3.11-devel",
        ),
        ("zypper", ("g++",), dict(version=(3, 10)), "missing for python3.10: make", "package manager: make"),
        (
            "apt-get",
            ("g++", "make"),
            dict(version=(3, 9)),
            "need Python 3.10 to 3.13; found python3.9",
            "sudo apt-get install python3.12 python3.12-dev python3.12-venv",
        ),
        ("apt-get", ("g++", "make"), None, "found no Python", "sudo apt-get install python3.12"),
    ],
)
def test_what_is_missing_is_named_with_the_command(
    env: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    manager: str,
    tools: tuple[str, ...],
    python: dict | None,
    missing: str,
    command: str,
) -> None:
    folder = tmp_path / "bin"
    for tool in (manager, *tools):
        program(folder, tool, "")
    if python:
        fake_python(folder, "python3", **python)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(env.SetupError) as error:
        env.find_python(["python3"])
    assert missing in str(error.value) and command in str(error.value)


def test_a_folder_that_is_no_environment_is_left_alone(env: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "setup.py").touch()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "thesis.txt").touch()
    with pytest.raises(env.SetupError, match="is not a virtual environment: move it away"):
        env.prepare(tmp_path, tmp_path / ".venv", steps(env, []))
    assert (tmp_path / ".venv" / "thesis.txt").exists()


def test_an_environment_of_another_python_is_refused(env: ModuleType, project: Path) -> None:
    (project / ".venv" / "bin" / "python").unlink()
    fake_python(project / ".venv" / "bin", "python", (3, 14))
    with pytest.raises(env.SetupError, match="python3.14, ROS 2 wheels need Python 3.10 to 3.13"):
        env.prepare(project, project / ".venv", steps(env, []))


def test_a_sourced_ros_distribution_stays_outside(env: ModuleType, tmp_path: Path) -> None:
    sourced = {name: "/opt/ros/jazzy/lib" for name in env.ROS_VARIABLES}
    sourced |= {"AMENT_PREFIX_PATH": "/home/me/ws/install/a:/opt/ros/jazzy", "HOME": "/home/me", "ROS_DOMAIN_ID": "7"}
    sourced["PATH"] = os.pathsep.join(["/home/me/ws/install/a/bin", "/opt/ros/jazzy/bin", "/usr/bin"])
    cleaned = env.clean_environment(sourced, tmp_path)
    assert cleaned == {
        "HOME": "/home/me",
        "PATH": f"{tmp_path}/bin:/usr/bin",
        "ROS_DOMAIN_ID": "7",
        "VIRTUAL_ENV": str(tmp_path),
    }


def test_the_makefile_names_every_target() -> None:
    command = ["make", "--no-print-directory", "help"]  # the test itself may run inside make
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == "help setup test demo bench lint clean".split()
