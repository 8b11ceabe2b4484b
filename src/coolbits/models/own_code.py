"""Models that bring Python code of their own, which `auto_map` in their files names."""

import json
from pathlib import Path

from transformers import PreTrainedModel

from coolbits.artifacts.files import write_text
from coolbits.models.files import reading

_KEY = "auto_map"
_FILES = ("config.json", "tokenizer_config.json")
_DYNAMIC = "transformers_modules"  # the library's package of code that came with models


def is_own_code(model: PreTrainedModel) -> bool:
    """Whether a model that was loaded, or its config, is of a class that came with it, not of the library's."""
    return any(type(each).__module__.partition(".")[0] == _DYNAMIC for each in (model, model.config))


def forget_own_code(directory: Path) -> None:
    """Take `auto_map` out of a Hugging Face directory, in place, whose model is of a class of the library.

    The code is not in it, and a reader with `trust_remote_code` would look for it in vain.

    Raises:
        CoolbitsError: if one of its files is not JSON.
    """
    for path in (directory / name for name in _FILES):
        if path.is_file():
            with reading(path):
                content = json.loads(path.read_bytes())
            if _KEY in content:
                del content[_KEY]
                write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
