"""The study, resolved once. `snakemake --configfile FILE` chooses another study than config.yaml."""

import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from coolbits.arguments import refuse, refusing
from coolbits.study.workflow import Workflow, chosen_study

for folder in (Path.cwd(), Path(workflow.basedir)):
    if set("{}") & set(str(folder)):
        sys.exit(
            refuse(
                f"{folder}: braces in a path are placeholders to Snakemake; rename the folder"
            )
        )
with refusing():
    flow = Workflow.read(
        chosen_study(workflow.overwrite_configfiles, workflow.config_settings.config)
    )
    # The times of what others make just now are put in order where the run was started, not by each job of a cluster.
    if not workflow.remote_exec:
        flow.settle()

# Bars of several jobs would overwrite each other on one terminal.
shell.prefix("export COOLBITS_PLAIN_PROGRESS=1; ")


def warn_jobs(*_):
    """Hand on a cluster's warning that time is nearly up: trainings save their states and stop."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "coolbits" in (Path(part).name for part in process.cmdline()[:2]):
                process.terminate()


# SLURM signals what srun started, which is a Snakemake that runs one job; it would keep SIGTERM to itself.
if workflow.remote_exec:
    signal.signal(signal.SIGUSR1, warn_jobs)


onstart:
    with refusing():
        flow.start()
