"""Reads YAML without its traps: no aliases, no tags, no key twice, and only values that JSON has, too."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from coolbits.artifacts.errors import CoolbitsError

_MAX_BYTES = 1 << 20
_MAX_INTEGER = 1 << 63
_MAX_DIGITS = 100
_MAX_DEPTH = 50
_UNSAFE = {
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:merge": "a merge (<<)",
    "tag:yaml.org,2002:value": "a lone =",
}
# YAML 1.1 reads 010 as 8 and 1:30 as 90.
_NOT_DECIMAL = re.compile(r"[-+]?0[0-7_]+|.*:.*")


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1 in which `1e-3` is a number and a key given twice, an alias or a tag is an error."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {line}: aliases (*name) are not allowed")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise yaml.YAMLError(f"line {line}: the tag {tag} is not allowed; text goes in quotes")
        if self.depth >= _MAX_DEPTH:
            raise yaml.YAMLError(f"line {line}: more than {_MAX_DEPTH} levels of keys or lists")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag in _UNSAFE:
            raise yaml.YAMLError(f"line {line}: {_UNSAFE[node.tag]} is not allowed; text goes in quotes")
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")):
            _demand_decimal(node.value, line)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.YAMLError(f"line {line}: a key that is not text, {_excerpt(key)}; put it in quotes")
            if key.value in seen:
                raise yaml.YAMLError(f"line {line}: the key {key.value!r} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _demand_decimal(number: str, line: int) -> None:
    if len(number) > _MAX_DIGITS:
        raise yaml.YAMLError(f"line {line}: a number of {len(number):,} digits; at most {_MAX_DIGITS} are allowed")
    if _NOT_DECIMAL.fullmatch(number):
        said = "YAML reads a number that begins with 0 as octal, and one with ':' in base 60"
        raise yaml.YAMLError(f"line {line}: {number}: {said}; write a decimal number, or put it in quotes")


def _excerpt(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)[:40]
    return "a sequence" if isinstance(node, yaml.SequenceNode) else "a mapping"


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values: text, finite numbers, true, false and null, in lists and mappings.

    Raises:
        CoolbitsError: if it is missing, too large, not UTF-8 or not such YAML.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CoolbitsError(f"{path}: larger than 1 MiB; a study file is a few hundred lines of YAML")
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise CoolbitsError(f"{path}: no such study file") from None
    except IsADirectoryError:
        raise CoolbitsError(f"{path}: a folder, not a study file") from None
    except OSError as error:
        raise CoolbitsError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise CoolbitsError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise CoolbitsError(f"{path}: not readable as YAML: {_said(error)}") from None
    _demand_numbers(value, str(path), "")
    return mapping(value, str(path))


def _said(error: Exception) -> str:
    """Say in one line what the library says in several."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        said = ", ".join(filter(None, (error.context, error.problem)))
        return f"line {error.problem_mark.line + 1}: {said}"
    return " ".join(str(error).split())


def _demand_numbers(value: Any, path: str, where: str) -> None:
    match value:
        case dict():
            for key, item in value.items():
                _demand_numbers(item, path, f"{where}.{key}" if where else key)
        case list():
            for place, item in enumerate(value):
                _demand_numbers(item, path, f"{where}.{place}")
        case float() if not math.isfinite(value):
            raise CoolbitsError(f"{path}: {where}: should be a finite number; found {value}")
        case int() if abs(value) >= _MAX_INTEGER:
            raise CoolbitsError(f"{path}: {where}: should be below 2**63; found a number of {value.bit_length()} bits")


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a mapping as it is.

    Raises:
        CoolbitsError: if it is anything else.
    """
    if not isinstance(value, dict):
        raise CoolbitsError(f"{where}: should be keys and values; found {shown(value)}")
    return value


def shown(value: Any) -> str:
    """Show a value that was found, in a few words."""
    words = {None: "nothing", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else f"{value!r:.80}"
