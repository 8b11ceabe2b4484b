"""A small results folder, real in all but how its artifacts are made: manifests, records, links, tables, pictures."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from coolbits.artifacts.environment import lock_digest
from coolbits.artifacts.hashing import digest_of, file_digest
from coolbits.artifacts.manifest import sealed
from coolbits.artifacts.node import Node, Ref, fingerprint_of, make_node
from coolbits.artifacts.store import Store
from coolbits.figures.style import save
from coolbits.provenance.audit import audit
from coolbits.provenance.circumstances import present_code
from coolbits.provenance.findings import Finding
from coolbits.provenance.lineage import Key, trace
from coolbits.study.plan import Plan, make_plan
from coolbits.study.sources import EMBEDDED

Build = Callable[[Path], dict[str, Any]]
FIGURE: Key = ("figure", "tiny/tokens")
MODEL = {"architecture": "gpt_neox", "config": {"hidden_size": 8}}
EMBEDDED_DIGEST = file_digest(EMBEDDED)
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
    "lock": lock_digest(),
    "git": {"commit": "c" * 40, "dirty": False},
    "host": {"name": "host", "system": "Linux", "cpu": "Some CPU", "cores": 2},
    "threads": "1",
    "device": "cpu",
}


class Laboratory:
    """Makes artifacts in a results folder; `environment` is what their records will say."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = ENVIRONMENT

    def make(self, node: Node, files: dict[str, Any], summary: dict[str, Any] | None = None) -> Node:
        def build(directory: Path) -> dict[str, Any]:
            for name, content in files.items():
                path = directory / name
                path.parent.mkdir(exist_ok=True)
                if callable(content):
                    content(path)
                else:
                    path.write_text(content)
            return summary or {}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("coolbits.artifacts.store.capture_environment", lambda: self.environment)
            Store(self.root, present_code(node.kind)).ensure(node, build)
        return node

    def findings(self, quick: bool = False, key: Key = FIGURE) -> list[Finding]:
        """What the audit of an artifact, by default the figure, says."""
        return list(audit(trace(self.root, [key]), quick))

    def held(self, quick: bool = False, key: Key = FIGURE) -> list[str]:
        """The lines that are held against it."""
        return [str(finding) for finding in self.findings(quick, key) if not finding.information]

    def noted(self) -> list[str]:
        """The lines that only inform."""
        return [str(finding) for finding in self.findings() if finding.information]

    def one(self, kind: str, name: str = "*") -> Path:
        """The folder of the first artifact of a kind, of those whose name looks like that."""
        places = [path.parent for path in (self.root / kind).rglob("manifest.json")]
        return min(place for place in places if place.relative_to(self.root / kind).match(name))

    def rewrite(self, path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the values of a JSON file, and its seal with them, as one who knows of it would."""
        values = json.loads(path.read_text())
        change(values)
        values = sealed(values) if "seal" in values else values
        path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")

    def shared(self, kind: str, label: str, recipe: dict[str, Any], parents: dict[str, Ref], **made: Any) -> Node:
        return self.make(
            make_node(kind, label, recipe, parents), made.get("files", {"data": label}), made.get("summary")
        )

    def named(self, kind: str, name: str, recipe: dict[str, Any], parents: dict[str, Ref], **made: Any) -> Node:
        node = Node(kind, name, recipe, parents, fingerprint_of(kind, recipe, parents))
        return self.make(node, made.get("files", {"data": name}), made.get("summary"))


def build_study(lab: Laboratory, study: str = "tiny", **options: Any) -> None:
    """Make a study: one trajectory of two checkpoints, one of them quantized, scored, tabulated and drawn.

    Options: `bits`, `peak_lr`, `losses` (of the two evaluations), `diverged` (the second checkpoint and what is made
    from it), `fallbacks`, `said` (what the table says of both), `run` (its name).
    """
    bits, peak_lr = options.get("bits", 3), options.get("peak_lr", 0.01)
    losses, lost, fallbacks = (
        options.get("losses", (2.0, 2.5)),
        options.get("diverged", False),
        options.get("fallbacks", 0),
    )
    source = {"kind": "embedded", "name": "english", "sha256": EMBEDDED_DIGEST}
    corpus = lab.shared("corpus", "english", {"source": source, "salt": "x"}, {})
    tokenizer = lab.shared("tokenizer", "bpe", {"tokenizer": {"kind": "bpe"}}, {"corpus": corpus.ref})
    shards = lab.shared("shards", "english-bpe", {}, {"corpus": corpus.ref, "tokenizer": tokenizer.ref})
    recipe = {
        "model": MODEL,
        "schedule": {"kind": "constant"},
        "peak_lr": peak_lr,
        "seed": 0,
        "batch_tokens": 256,
    }
    track = f"neox-lr{peak_lr}-{digest_of(recipe)[:8]}"
    outcome = {"outcome": "diverged", "diverged_step": 15} if lost else {}
    steps = {
        step: lab.named(
            "checkpoint",
            f"{track}/step_{step:07d}",
            {"trajectory": recipe, "step": step},
            {"shards": shards.ref, "tokenizer": tokenizer.ref},
            files={"model.safetensors": f"weights {step} {peak_lr}", "config.json": "{}"},
            summary=outcome if step == 20 else {},
        )
        for step in (10, 20)
    }
    model = steps[20]
    quantized = lab.shared(
        "quantized",
        f"gptq-w{bits}",
        {"method": {"kind": "gptq", "grid": {"bits": bits}}},
        {"model": model.ref},
        summary=outcome | {"fallbacks": fallbacks},
    )
    measure = {"measure": {"kind": "loss"}}
    base = lab.shared("evaluation", "loss", measure, {"model": model.ref}, files={"n": str(losses)}, summary=outcome)
    scored = lab.shared(
        "evaluation",
        "loss-q",
        measure,
        {"model": model.ref, "quantized": quantized.ref},
        files={"n": str(losses)},
        summary=outcome,
    )
    columns = {
        "run": options.get("run", "trunk"),
        "trajectory": track,
        "peak_lr": peak_lr,
        "seed": 0,
        "step": 20,
        "source": "checkpoint",
    }
    rows = [
        {"evaluation": "evaluation.0", "base": None, "columns": columns | {"quantizer": "none", "bits": None}},
        {"evaluation": "evaluation.1", "base": "evaluation.0", "columns": columns | {"quantizer": "q", "bits": bits}},
    ]
    said = options.get("said", ("diverged" if lost else "complete", 0 if lost else fallbacks))
    frame = pd.DataFrame([row["columns"] for row in rows])
    frame = frame.assign(measurement=range(2), loss=losses, outcome=said[0], fallbacks=[0, said[1]])
    table = lab.named(
        "table",
        f"{study}/loss",
        {"content": "loss", "rows": rows},
        {"evaluation.0": base.ref, "evaluation.1": scored.ref},
        files={"table.parquet": lambda path: frame.to_parquet(path, index=False)},
    )
    draw_figure(lab, f"{study}/tokens", table)


def draw_figure(lab: Laboratory, name: str, table: Node, options: dict[str, Any] | None = None) -> Node:
    recipe, parents = {"figure": "tokens", "options": options or {}}, {"loss": table.ref}
    manifest = json.loads((table.directory(lab.root) / "manifest.json").read_text())
    lineage = digest_of(
        {"fingerprint": fingerprint_of("figure", recipe, parents), "parents": {"loss": digest_of(manifest)}}
    )
    files = {
        "tokens.svg": lambda path: save(Figure(figsize=(1, 1)), path.parent, "tokens", lineage),
        "caption.txt": "What it shows.\n",
    }
    return lab.named("figure", name, recipe, parents, files=files, summary={"lineage": lineage})


@pytest.fixture(scope="session")
def build():
    """The function that makes a study's artifacts in a laboratory."""
    return build_study


@pytest.fixture(scope="session")
def draw():
    """The function that draws one more figure from a table."""
    return draw_figure


@pytest.fixture
def empty(tmp_path):
    """A laboratory without artifacts."""
    return Laboratory(tmp_path / "results")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """The results of one study, made once."""
    root = tmp_path_factory.mktemp("template") / "results"
    build_study(Laboratory(root))
    return root


@pytest.fixture
def lab(template, tmp_path):
    """The results of one study, for a test to spoil."""
    return Laboratory(Path(shutil.copytree(template, tmp_path / "results")))


@pytest.fixture
def move_away(lab, tmp_path) -> Callable[[str], Path]:
    """The function that moves a folder of the laboratory to another disk, with a link in its place."""

    def move(place: str) -> Path:
        disk = tmp_path / "disk" / place.replace("/", "-")
        disk.parent.mkdir(exist_ok=True)
        (lab.root / place).rename(disk)
        (lab.root / place).symlink_to(disk)
        return disk

    return move


# Two peak rates, the second of which diverges.
STUDY = """
study: tiny
data:
  tokenizer: {kind: bpe, vocabulary_size: 512}
defaults: {model: micro-neox, sequence_length: 64, batch_tokens: 2048, optimizer: {kind: adamw}}
runs:
  wsd: {schedule: {kind: wsd, warmup: 5%, decay: 20%}, peak_lr: [0.01, 1.0], tokens: 200k}
quantizers:
  rtn-w3: {method: {kind: rtn, grid: {bits: 3, group_size: 64}}}
evaluations:
  loss: {measure: {kind: loss}}
figures:
  peak-rate: {figure: peak-rate}
"""
CAPTION = "Higher rates help."


def build_clone(lab: Laboratory, study: str) -> Plan:
    """Make a clone of the project around the results, and all that the study file `study` in it wants."""
    folder = lab.root.parent
    for name in ("Snakefile", "workflow/rules/all.smk", "envs/coolbits.lock", "src/coolbits/cli.py", "src/x/.cache/y"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")
    (folder / study).write_text(STUDY)
    plan = make_plan(folder / study)
    lost: set[str] = set()
    for node in plan.nodes:
        if "-lr1-" in node.name or any(ref.name in lost for ref in node.parents.values() if ref.kind != "evaluation"):
            lost.add(node.name)
        diverged = node.name in lost and node.kind not in ("table", "figure")
        files = {"data.json": json.dumps(node.name), "inner/data.bin": "0123456789" * 200}
        if node.kind == "figure":
            files = {"peak-rate.svg": "<svg/>", "peak-rate.png": "a picture", "caption.txt": f"{CAPTION}\n"}
        lab.make(node, files, {"outcome": "diverged", "diverged_step": 7} if diverged else {})
    return plan


@pytest.fixture
def clone(empty) -> Callable[..., Plan]:
    """The function that puts a clone of the project, with whole results, around the laboratory `empty`."""
    return lambda study="tiny.yaml": build_clone(empty, study)
