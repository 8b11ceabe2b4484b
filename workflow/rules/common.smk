"""The study, resolved once. `snakemake --configfile FILE` chooses another study than config.yaml."""

import sys
from pathlib import Path

from coolbits.arguments import refuse
from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.workflow import Workflow

for folder in (Path.cwd(), Path(workflow.basedir)):
    if set("{}") & set(str(folder)):
        sys.exit(
            refuse(
                f"{folder}: braces in a path are placeholders to Snakemake; rename the folder"
            )
        )
try:
    flow = Workflow.read(next(iter(workflow.overwrite_configfiles), "config.yaml"))
    flow.settle()
except CoolbitsError as error:
    sys.exit(refuse(str(error)))

# Bars of several jobs would overwrite each other on one terminal.
shell.prefix("export COOLBITS_PLAIN_PROGRESS=1; ")


onstart:
    flow.start()
