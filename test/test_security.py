"""What docs/security.md promises: nothing is executed or fetched, and files are written only where told."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings import write_recording

import ckd_tracker_ros

SOURCE = Path(ckd_tracker_ros.__file__).parent
ROOT = SOURCE.parent

OFFLINE = {"training", "sequences/benchmarks.py", "network/convert.py", "network/unpickle.py", "ros/demo.py"}
"""Not of the node and not of `track`: training resumes from its own files with weights_only, two readers take pickles
apart without executing them, the demo starts the node as a process."""
FORBIDDEN_MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "subprocess", "pty", "socket",
    "socketserver", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "xmlrpc",
    "telnetlib", "huggingface_hub", "code", "codeop", "ctypes", "cffi",
}  # fmt: skip
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "spawnv", "execv", "startfile"}
MODEL_HOSTS = {"load_url", "load_state_dict_from_url", "hf_hub_download", "download_url_to_file"}


def run_time_modules() -> Iterator[Path]:
    for file in sorted(SOURCE.rglob("*.py")):
        name = file.relative_to(SOURCE).as_posix()
        if name not in OFFLINE and name.split("/")[0] not in OFFLINE:
            yield file


def dangers(source: str) -> list[str]:
    """What a module's text does that none of the node may do."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
        given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        free = isinstance(node.func, ast.Name) or owner in ("os", "builtins")
        if name in MODEL_HOSTS or (name in FORBIDDEN_CALLS and free):
            found.append(f"calls {name}")
        if owner == "torch" and name == "load" and given.get("weights_only") is not True:
            found.append("torch.load of anything")
        if given.get("shell") or given.get("allow_pickle") or (name == "create_model" and given.get("pretrained")):
            found.append(f"{name} with a shell, a pickle or a download")
    return found


@pytest.mark.parametrize("file", list(run_time_modules()), ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_no_module_of_the_node_unpickles_runs_or_fetches(file):
    assert dangers(file.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from subprocess import run",
        "import urllib.request",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "run(words, shell=True)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "os.system(text)",
        "timm.create_model(name, pretrained=True)",
    ],
)
def test_the_walk_finds(source):
    assert len(dangers(source)) == 1


def test_training_resumes_without_running_its_file():
    assert "torch.load of anything" not in dangers((SOURCE / "training" / "loop.py").read_text())


WATCH = """
import json, os, sys
log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        said = os.path.abspath(os.fsdecode(args[0]))
    elif event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.chmod"):
        said = os.path.abspath(os.fsdecode(args[1] if event in ("os.rename", "os.symlink", "os.link") else args[0]))
    elif event.startswith(("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.", "os.exec", "os.system",
                           "os.posix_spawn", "os.fork", "pickle.find_class", "urllib.")):
        said = repr(args)[:200]
    else:
        return
    os.write(log, (json.dumps([event, said]) + "\\n").encode())
"""
TRACK = WATCH + "sys.addaudithook(watch)\nfrom ckd_tracker_ros.cli import main\nmain()\n"
NODE = WATCH + (
    "import rclpy\n"  # whose wheels, where there is no ROS distribution, start the interpreter once more
    "sys.addaudithook(watch)\nfrom ckd_tracker_ros.ros import node\nsys.exit(node.main())\n"
)


def events(log: Path) -> list[tuple[str, Path | str]]:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def outside(found: list[tuple[str, str]], *folders: Path) -> list[tuple[str, str]]:
    """Events that are no writing below one of the folders, nor to a device, nor what torch does when it is imported."""
    found = [each for each in found if "torchinductor_" not in each[1] and not each[1].startswith("('/sbin/ldconfig'")]
    writes = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod")
    allowed = [*map(str, folders), "/dev/null", "/dev/shm"]
    return [
        (event, said)
        for event, said in found
        if event not in writes or not any(said == each or said.startswith(f"{each}/") for each in allowed)
    ]


def test_track_writes_its_results_and_nothing_else(tmp_path, tiny_checkpoint):
    source, out, log = write_recording(tmp_path / "recording", 4), tmp_path / "out", tmp_path / "events"
    words = ["track", source, "--model", tiny_checkpoint, "--device", "cpu", "--out", out, "--video"]
    done = subprocess.run(
        [sys.executable, "-B", "-c", TRACK, *map(str, [log, *words])],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = events(log)
    assert ("open", str(out / "results.csv")) in found
    assert outside(found, out) == []
    assert {path.name for path in out.iterdir()} == {"results.csv", "recording.txt", "overlay.mp4"}


def test_the_node_writes_its_log_and_nothing_else(tmp_path, monkeypatch):
    ros_helpers = pytest.importorskip("ros_helpers", reason="needs ROS 2: a distribution, or the wheels")
    logs, log = tmp_path / "ros logs", tmp_path / "events"
    monkeypatch.setenv("ROS_LOG_DIR", str(logs))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    weights = ros_helpers.tiny_checkpoint(tmp_path / "tiny.safetensors")
    program = tmp_path / "watched.py"
    program.write_text(NODE)
    node = ros_helpers.NodeProcess(tmp_path / "log.txt", f"model:={weights}", program=(str(program), str(log)))
    robot = ros_helpers.Robot()
    try:
        robot.connected()
        robot.play(0, ros_helpers.STEP_NS)
        assert robot.start(("a", "", (34, 42, 20, 24))).success
        robot.play(1, 2 * ros_helpers.STEP_NS)
        assert robot.result(2 * ros_helpers.STEP_NS).targets
    finally:
        code = node.end()
        robot.close()
    assert code == 0, node.output
    assert outside(events(log), logs) == []
    assert {path.suffix for path in logs.rglob("*") if path.is_file()} <= {".log"}


def test_a_log_folder_that_cannot_be_made_does_not_leave_a_traceback(tmp_path, monkeypatch):
    ros_helpers = pytest.importorskip("ros_helpers", reason="needs ROS 2: a distribution, or the wheels")
    monkeypatch.setenv("ROS_LOG_DIR", "/proc/logs")
    node = ros_helpers.NodeProcess(tmp_path / "log.txt")
    ros_helpers.until(lambda: not node.alive, "the node to end")
    assert node.end() == 2
    assert "/proc/logs" in node.output and "Traceback" not in node.output


POLICY = ROOT / "config" / "sros2_policy.xml"


def allowed(kind: str, right: str) -> set[str]:
    """Names that the policy allows, resolved as the node's."""
    tree = ElementTree.parse(POLICY).getroot()
    assert (tree.tag, tree.get("version")) == ("policy", "0.2.0")
    (profile,) = tree.findall("./enclaves/enclave[@path='/ckd_tracker']/profiles/profile[@node='ckd_tracker']")
    names = [
        each.text for group in profile if group.tag == f"{kind}s" and group.get(right) == "ALLOW" for each in group
    ]
    assert len(names) == len(set(names))
    return {name.replace("~", "/ckd_tracker") if name[0] in "~/" else f"/{name}" for name in names}


def test_the_policy_is_what_the_node_has(tmp_path):
    ros_helpers = pytest.importorskip("ros_helpers", reason="needs ROS 2: a distribution, or the wheels")
    weights = ros_helpers.tiny_checkpoint(tmp_path / "tiny.safetensors")
    with ros_helpers.running(tmp_path / "log.txt", f"model:={weights}") as (_, robot):
        robot.connected()
        graph = robot.node
        ros_helpers.until(lambda: "ckd_tracker" in graph.get_node_names(), "the node's name")

        def names(what: str) -> set[str]:
            return {name for name, _ in getattr(graph, f"get_{what}_names_and_types_by_node")("ckd_tracker", "/")}

        optional = {"/ckd_tracker/detections"}  # where vision_msgs is installed
        assert names("publisher") | optional == allowed("topic", "publish")
        unused = {f"/{name}/image_raw/compressed" for name in ("rgb", "thermal")} | {"/clock", "/parameter_events"}
        assert names("subscriber") | unused == allowed("topic", "subscribe")
        newer = {"/ckd_tracker/get_type_description"}  # from Jazzy
        assert names("service") | newer == allowed("service", "reply")
        assert names("client") == allowed("service", "request") == set()
