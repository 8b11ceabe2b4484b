"""What a fork server imports, and uses once, before it forks: no job in a forked process has to do it again.

Processes are not forked from the one that runs the tests: libraries have threads there, of which a fork keeps none, and
tokenizers would wait for its own for ever.
"""

import importlib

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.environment import capture_environment
from coolbits.stages import STAGES

for _module in STAGES.values():
    importlib.import_module(_module)
    code_slice(_module)
importlib.import_module("sklearn.datasets")  # the stage of images imports it where it has to
capture_environment()
