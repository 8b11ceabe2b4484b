"""The plan as a table for people."""

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from coolbits.artifacts.progress import duration
from coolbits.study.cost import Cost, study_cost
from coolbits.study.plan import KINDS, Plan
from coolbits.study.standing import standing, stands
from coolbits.study.units import si, si_bytes

_UNBOUNDED = 10_000


def print_plan(plan: Plan, root: Path) -> None:
    """Print every node with its state, then the totals."""
    kept = standing(plan, root)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED  # a file or a pipe has no edge at which names would have to be cut
    nodes = Table("kind", Column("name", overflow="fold"), "state", box=None, pad_edge=False)
    for node in plan.nodes:
        nodes.add_row(node.kind, node.name, "exists" if stands(node, kept) else "to make")
    console.print(nodes, soft_wrap=True)
    console.print()
    cost = study_cost(plan, kept)
    totals = Table(box=None, pad_edge=False, show_header=False)
    for kind in KINDS:
        count = len(plan.of_kind(kind))
        if count:
            made = sum(stands(node, kept) for node in plan.of_kind(kind))
            jobs = len(plan.jobs(kind))
            totals.add_row(kind, f"{count} node{'s' * (count > 1)} in {jobs} job{'s' * (jobs > 1)}, {made} exist")
    totals.add_row("to train", _training(cost))
    if plan.tracks:
        totals.add_row(
            "sharing saves",
            f"{cost.saved:.0%} of {cost.naive_flops:.2e} FLOPs ({si(cost.naive_tokens)} tokens) of separate runs",
        )
    totals.add_row("takes about", _hours(cost))
    if cost.gpu_bytes:
        totals.add_row("largest GPU memory", f"about {_two_digits(cost.gpu_bytes / 1e9)} GB")
    totals.add_row("disk of text, models, images", _disk(cost))
    missed = plan.unmeasured
    if kinds := [section for section in missed if section != "evaluations"]:
        totals.add_row("not measured", "; ".join(f"{section} {', '.join(missed[section])}" for section in kinds))
    if "evaluations" in missed:
        totals.add_row("measures nothing", f"evaluations {', '.join(missed['evaluations'])}")
    console.print(totals, soft_wrap=True)


def _training(cost: Cost) -> str:
    if not cost.flops:
        return "nothing"
    if not cost.tokens:
        return f"{cost.flops:.2e} FLOPs in all, on images"
    of_images = f", {cost.image_flops:.2e} of them on images" if cost.image_flops else ""
    return f"{si(cost.tokens_left)} of {si(cost.tokens)} tokens, {cost.flops:.2e} FLOPs in all{of_images}"


def _hours(cost: Cost) -> str:
    """Say the cost of the whole study, to two digits: it is an estimate to a factor of two."""
    gpus = [f"{_two_digits(cost.gpu_hours)} GPU hours"] * bool(cost.gpu_hours)
    hours = " and ".join([*gpus, f"{_two_digits(cost.core_hours)} core hours"])
    return f"{hours} in all, its longest job {duration(3600 * cost.longest_job_hours)}"


def _disk(cost: Cost) -> str:
    guessed = f", {si_bytes(cost.unknown_bytes)} of it a guess: the study does not say how long the corpus is"
    return si_bytes(cost.bytes) + (guessed if cost.unknown_bytes else "")


def _two_digits(number: float) -> str:
    return f"{float(f'{number:.2g}'):,g}"
