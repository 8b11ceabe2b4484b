"""coolbits: from text to claims. A table of contents; the rules are in workflow/rules, the logic in src/coolbits."""

from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/pretrained.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/averaging.smk"
include: "workflow/rules/finetuning.smk"
include: "workflow/rules/quantization.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/vision.smk"
include: "workflow/rules/results.smk"


rule all:
    default_target: True
    input:
        flow.targets(),


# Each kind is a target, too: `snakemake --cores all calibration` makes all of that kind, and what it is made from.
for kind in flow.kinds:

    rule:
        name:
            kind
        input:
            flow.manifests(kind),
