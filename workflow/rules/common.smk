"""The study, resolved once. `snakemake --configfile FILE` chooses another study than config.yaml."""

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.workflow import Workflow
from snakemake.exceptions import WorkflowError

try:
    flow = Workflow.read(next(iter(workflow.overwrite_configfiles), "config.yaml"))
    flow.settle()
except CoolbitsError as error:
    raise WorkflowError(str(error)) from None

# Bars of several jobs would overwrite each other on one terminal.
shell.prefix("export COOLBITS_PLAIN_PROGRESS=1; ")


onstart:
    flow.start()
