"""What SLURM is asked for, with stand-ins for its commands; and that a warning reaches the training under way."""

import os
import signal
import stat
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from coolbits.study.workflow import Workflow

pytestmark = [pytest.mark.xdist_group("workflow"), pytest.mark.slow]

SBATCH = """import os, subprocess, sys
from pathlib import Path
(wrapped,) = (argument.removeprefix("--wrap=") for argument in sys.argv if argument.startswith("--wrap="))
Path("calls.txt").open("a").write("\\n".join(argument for argument in sys.argv[1:] if "--wrap" not in argument) + "\\n")
environment = os.environ | {"SLURM_JOB_ID": "17"}
status = subprocess.run(["sh", "-c", wrapped], env=environment, capture_output=True).returncode
Path("status.txt").write_text("COMPLETED" if status == 0 else "FAILED")
print(17)
"""
SRUN = """import os, sys
command = sys.argv[1:]
while command[0].startswith("-"):
    command.pop(0)
os.execvp(command[0], command)
"""
SACCT = """from pathlib import Path
print("17|" + Path("status.txt").read_text())
"""
LOSES_A_NODE = """import sys
from pathlib import Path
asked = Path("asked.txt")
if any("nodelist" in argument for argument in sys.argv):
    print("node7")
else:
    print("17|" + ("COMPLETED" if asked.exists() else "NODE_FAIL"))
    asked.touch()
"""
COMMANDS = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "sacctmgr": "print('mine')"}
SLURM = ("--profile", "workflow/profiles/slurm", "--slurm-init-seconds-before-status-checks", "1")


@pytest.fixture
def cluster(fresh, monkeypatch):
    """A project on a cluster that runs each job at once."""
    folder = fresh.folder / "bin"
    folder.mkdir()
    silent = dict.fromkeys(("squeue", "sinfo", "scancel", "scontrol", "sshare"), "")
    for name, script in (COMMANDS | silent).items():
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{script}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    profile = fresh.folder / "workflow/profiles/slurm/config.yaml"
    profile.write_text(profile.read_text().replace("# slurm_account: myaccount", "slurm_account: mine"))
    profile.write_text(profile.read_text().replace("# slurm_partition: mypartition", "slurm_partition: fast"))
    return fresh


def test_a_job_is_submitted_with_account_partition_time_memory_and_a_warning(cluster):
    cluster.write_study(cluster.study() | {"execution": {"longest_minutes": 7}}, "other.yaml")
    (cluster.folder / "config.yaml").unlink()
    wanted = (
        f"results/corpus/{Workflow.read(cluster.folder / 'other.yaml').plan.of_kind('corpus')[0].name}/manifest.json"
    )
    done = cluster.run("snakemake", *SLURM, "--configfile", "other.yaml", "--", wanted)
    assert done.returncode == 0, done.stderr
    call = (cluster.folder / "calls.txt").read_text().splitlines()
    given = dict(pairwise(call))
    assert (given["-A"], given["-p"], given["-t"], given["--mem"]) == ("mine", "fast", "7", "2500")
    assert "--signal=USR1@300" in call
    assert not any(argument.startswith("--gpus") for argument in call)
    assert list(cluster.manifests()) == [Path(wanted).parent.relative_to("results").as_posix()]


def test_a_job_that_its_node_took_along_is_left_to_slurm_and_not_submitted_a_second_time(cluster):
    """SLURM puts such a job back into its queue, under its old number: two would work at one artifact."""
    (cluster.folder / "bin" / "sacct").write_text(f"#!{sys.executable}\n{LOSES_A_NODE}")
    wanted = f"results/corpus/{cluster.plan().of_kind('corpus')[0].name}/manifest.json"
    done = cluster.run("snakemake", *SLURM, "--", wanted)
    assert done.returncode == 0, done.stderr
    calls = (cluster.folder / "calls.txt").read_text().splitlines()
    assert calls.count("--requeue") == sum(call.startswith("--signal") for call in calls) == 1


def test_a_warned_training_saves_its_state_and_stops(project):
    study = project.study()
    study["runs"]["trunk"] |= {"tokens": 25_600_000, "checkpoints": {"every": 12_800_000}}
    study["averages"] = {}
    study["execution"] = {"state_every_seconds": 3600}
    project.write_study(study)
    flow = Workflow.read(project.folder / "config.yaml", project.results)
    flow.start()
    task = max(flow.tasks("checkpoint"), key=lambda task: task.seconds)
    target = Path(task.output[-1]).relative_to(project.folder)
    log = project.folder / Path(task.log).relative_to(project.folder)
    log.unlink()
    (corpus,) = project.results.glob("corpus/*/manifest.json")
    os.utime(corpus, (ahead := time.time() + 60, ahead))  # by a clock that is not this node's
    # As the plugin's job step calls it.
    remote = ("--cores", "1", "--mode", "remote", "--force", "--nolock", "--no-hooks", "--ignore-incomplete")
    job = project.start("snakemake", *remote, "--allowed-rules", task.name, "--", str(target))
    deadline = time.monotonic() + 120
    while "states:" not in (log.read_text() if log.exists() else "") and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(job.pid, signal.SIGUSR1)
    assert job.wait(60) == 1
    assert "stopped by SIGTERM after step" in log.read_text()
    assert "its state is saved, run again to go on" in log.read_text()
    assert list((project.results / "work/checkpoint").glob("*/states/step_*"))
    assert not psutil.pid_exists(job.pid)
    assert corpus.stat().st_mtime == pytest.approx(ahead)
