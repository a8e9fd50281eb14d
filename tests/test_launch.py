"""The launch scripts' dry runs: what would run where, and which mistakes are refused."""

import configparser
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT
from unnas_jax.core import memory

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TPU = ["launch/tpu_pod.sh", "run", "--dry-run", "--name=n", "--zone=z", "--type=v5litepod-16"]
GKE = [
    "launch/gke.sh",
    "--dry-run",
    "--name=n",
    "--image=i:1",
    "--accelerator=tpu-v5-lite-podslice",
]
GKE += ["--topology=4x4", "--bucket=b"]
SLURM = ["launch/slurm.sbatch", "--dry-run"]
FLAGS = ["--config=configs/rot_in1k.py", "--workdir=a b"]


def run(*command: str, status: int = 0, cwd: pathlib.Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_a_slice_is_made_filled_and_runs_main_on_all_hosts():
    lines = run("bash", *TPU, "--bucket=bk", "--spot", "--project=p", "--", *FLAGS).splitlines()
    verbs = [re.search(r"tpu-vm (\w+)", line).group(1) for line in lines if "tpu-vm" in line]
    assert verbs == ["create", "scp", "ssh", "ssh", "ssh", "ssh"]
    create = shlex.split(lines[0])
    assert create[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "create", "n"]
    assert {"--zone=z", "--project=p", "--spot", "--accelerator-type=v5litepod-16"} < set(create)
    assert all("--worker=all" in line for line in lines[2:])
    assert any("gcsfuse" in line and "bk" in line for line in lines)
    assert "main.py" in lines[-1] and "configs/rot_in1k.py" in lines[-1]
    assert "launch/finished.sh" in lines[-1]


@pytest.mark.parametrize(
    "command, word",
    [
        (["launch/tpu_pod.sh"], "give a command"),
        (["launch/tpu_pod.sh", "up", "--dry-run", "--zone=z", "--type=t"], "--name"),
        (["launch/tpu_pod.sh", "up", "--dry-run", "--name=n", "--zone=z"], "--type"),
        ([*TPU, "--", "--config=c"], "--workdir"),
        ([*TPU, "--config=c"], "behind --"),
        ([*SLURM, "--workdir=w"], "--config"),
        ([*SLURM, "--config=c"], "--workdir"),
        ([*GKE, "--chips=3", "--", "--workdir=/bucket/w"], "16 chips"),
        ([*GKE, "--topology=4", "--", "--workdir=/bucket/w"], "AxB"),
        ([*GKE, "--", "--workdir=/tmp/w"], "/bucket"),
    ],
)
def test_mistakes_are_refused_before_anything_is_made(command, word):
    assert word in run("bash", *command, status=2)


def test_slurm_runs_one_process_a_task():
    words = shlex.split(run("bash", *SLURM, *FLAGS))
    assert words[0] == "srun" and words[-2:] == FLAGS
    assert words[-3] == "main.py"


def test_an_array_splits_a_sweep_into_all_its_parts():
    parts = [
        run(
            "bash",
            *SLURM,
            *FLAGS,
            SLURM_ARRAY_TASK_ID=str(task),
            SLURM_ARRAY_TASK_MIN="3",
            SLURM_ARRAY_TASK_COUNT="2",
        ).split()[-1]
        for task in (3, 4)
    ]
    assert parts == ["--config.sweep.shard=0/2", "--config.sweep.shard=1/2"]


def array(task: int, first: int, last: int, count: int, status: int = 0, **more: str) -> str:
    return run(
        "bash",
        *SLURM,
        *FLAGS,
        status=status,
        SLURM_ARRAY_TASK_ID=str(task),
        SLURM_ARRAY_TASK_MIN=str(first),
        SLURM_ARRAY_TASK_MAX=str(last),
        SLURM_ARRAY_TASK_COUNT=str(count),
        **more,
    )


def test_arrays_with_gaps_take_every_part_or_are_refused_with_advice():
    # --array=0-14:7
    parts = [array(k, 0, 14, 3, SLURM_ARRAY_TASK_STEP="7").split()[-1] for k in (0, 7, 14)]
    assert [part.rpartition("=")[2] for part in parts] == ["0/3", "1/3", "2/3"]
    # --array=3,5
    for task in (3, 5):
        error = array(task, 3, 5, 2, status=2)
        assert "--array=0-1" in error and "UNNAS_SHARDS=" in error
    parts = [array(k, 3, 5, 2, UNNAS_SHARDS="8").split()[-1] for k in (3, 5)]
    assert [part.rpartition("=")[2] for part in parts] == ["3/8", "5/8"]
    assert "--array=0-4" in array(5, 3, 5, 2, status=2, UNNAS_SHARDS="5")
    assert "UNNAS_SHARDS=x" in array(3, 3, 5, 2, status=2, UNNAS_SHARDS="x")


def test_the_jobset_is_yaml_with_one_pod_a_host():
    flags = ["--config=configs/eval_in1k.py:it's", "--workdir=/bucket/a b"]
    jobset = yaml.safe_load(run("bash", *GKE, "--", *flags))
    [job] = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert jobset["kind"] == "JobSet" and jobset["metadata"]["name"] == "n"
    assert spec["parallelism"] == spec["completions"] == 4
    # A mistake of the user ends the run; what else ends it starts it again.
    [rule] = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
    assert jobset["spec"]["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    pod = spec["template"]["spec"]
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    [container] = pod["containers"]
    assert container["resources"]["limits"]["google.com/tpu"] == 4
    assert container["command"][-2:] == flags
    assert r"launch/finished.sh /bucket/a\ b" in container["command"][2]
    assert "${" not in "".join(container["command"])
    if shutil.which("shellcheck"):
        script = ["shellcheck", "--shell=bash", "-"]
        subprocess.run(script, input=container["command"][2], text=True, check=True)


@pytest.mark.parametrize(
    "files, status",
    [
        ({}, 75),
        ({"config.json": '{"experiment": "search"}'}, 75),
        ({"config.json": '{"experiment": "search"}', "genotype.json": '{"finished": false}'}, 75),
        ({"config.json": '{"experiment": "search"}', "genotype.json": '{"finished": true}'}, 0),
        # A training keeps the genotype of a search that has finished; its own end is elsewhere.
        ({"config.json": '{"experiment": "train"}', "genotype.json": '{"finished": true}'}, 75),
        ({"config.json": '{"experiment": "train"}', "result.json": '{"finished": true}'}, 0),
    ],
)
def test_a_run_that_stopped_early_is_not_taken_for_finished(files, status, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    run("bash", "launch/finished.sh", str(tmp_path), status=status)


_GCLOUD = """#!/usr/bin/env bash
case "$*" in
  *describe*) echo READY ;;
  *"cat unnas_jax/run.status"*) printf '%s\\n' $STATUSES ;;
  *main.py*) echo run >>"$RUNS"; exit 1 ;;
esac
"""


@pytest.mark.parametrize("statuses, runs, words", [("75 2 75", 1, "mistake"), ("75 75", 3, "not")])
def test_a_mistake_that_one_host_sees_is_not_tried_again(tmp_path, statuses, runs, words):
    """The status of gcloud itself is 1, whatever the hosts' are."""
    (tmp_path / "gcloud").write_text(_GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RUNS": str(tmp_path / "runs")}
    command = [part for part in TPU if part != "--dry-run"] + ["--attempts=3", "--wait=0", "--"]
    said = run("bash", *command, *FLAGS, status=2, STATUSES=statuses, **environment)
    assert (tmp_path / "runs").read_text().split() == ["run"] * runs
    assert words in said.splitlines()[-1]


@pytest.mark.parametrize(
    "facts, extra",
    [
        (None, "cpu"),  # No nvidia-smi.
        ("", "cpu"),  # One that fails: a driver without a GPU.
        ("No devices were found", "cpu"),
        ("580.65.06, 7.5", "cuda"),
        ("580.65.06, 7.0", "cuda12"),
        ("535.104.05, 9.0", "cuda12"),
    ],
)
def test_the_extra_of_this_machine(facts: str | None, extra: str, tmp_path: pathlib.Path) -> None:
    if facts is not None:
        end = "" if facts else "exit 9"
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{facts}'\n{end}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    script = "set -euo pipefail; source launch/environment.sh; device_extra"
    bash = shutil.which("bash")
    found = run(bash, "-c", script, PATH=str(tmp_path))
    assert found == f"{extra}\n"


@pytest.mark.parametrize("gpu", [False, True])
def test_runs_keep_freed_memory_where_the_cpu_computes(gpu: bool, tmp_path: pathlib.Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    tell = 'if [ "$1" = main.py ]; then echo "$2 $GLIBC_TUNABLES"; exit; fi'
    python.write_text(f'#!/bin/sh\n{tell}\nexec {sys.executable} "$@"\n')
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\n" + ("echo 580.65.06, 9.0" if gpu else "exit 9"))
    for program in (python, tools / "nvidia-smi"):
        program.chmod(0o755)
    around = {"UNNAS_VENV": str(venv), "PATH": f"{tools}:/usr/bin:/bin"}
    stamp = run("bash", "-c", "source launch/environment.sh; fingerprint", **around)
    (venv / f"installed-all,{'cuda' if gpu else 'cpu'}").write_text(stamp)
    flag, _, tunables = run("bash", "launch/local.sh", "--config=c", **around).partition(" ")
    assert (flag, tunables.strip()) == ("--config=c", "" if gpu else memory.TUNABLES)
    own = run("bash", "launch/local.sh", "--config=c", **around, GLIBC_TUNABLES="")
    assert own == "--config=c \n"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_hosted_workflow_is_well_formed_and_runs_what_is_there(path: pathlib.Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    # YAML 1.1 reads the key `on` as true.
    assert set(workflow) == {"name", True, "permissions", "concurrency", "jobs"}
    assert workflow[True].keys() >= {"push", "pull_request"}
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert set(job) <= {"runs-on", "timeout-minutes", "strategy", "steps"} and job["steps"]
        for step in job["steps"]:
            assert set(step) <= {"uses", "with", "run"} and len(step.keys() & {"uses", "run"}) == 1
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
                continue
            run("bash", "-n", "-c", step["run"])
            for script in re.findall(r"\S+\.sh\b", step["run"]):
                assert (ROOT / script).is_file()


def test_the_hosted_tests_run_on_every_python_that_is_named() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    named = re.findall(r"Python :: (3\.\d+)", package["metadata"]["classifiers"])
    assert jobs["newest"]["strategy"]["matrix"]["python"] == named and len(named) > 1
    [oldest] = [s["with"]["python-version"] for s in jobs["lowest"]["steps"] if "with" in s]
    assert package["options"]["python_requires"] == f">={oldest}" and oldest == min(named)
    assert any("--resolution lowest-direct" in s.get("run", "") for s in jobs["lowest"]["steps"])
