"""The tokenizer's files inside a Hugging Face model directory."""

import shutil
from pathlib import Path

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tekken.json",
    "chat_template.jinja",
)
TEMPLATES = "additional_chat_templates/*.jinja"  # beside the one that is there without a name


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer's files, those that there are, from one model directory to another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    for path in source.glob(TEMPLATES):
        copy = out / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
