"""Analyses: bytes of optimizer states, and what rounding them does to an update."""

for task in flow.tasks("analysis"):

    rule:
        name:
            task.name
        input:
            task.input,
        output:
            task.output,
        log:
            task.log,
        priority: task.priority
        conda:
            "../../envs/coolbits.yaml"
        threads: task.threads
        resources:
            **task.resources,
        params:
            recipe=task.recipe,
            root=flow.root,
            board=flow.board.path,
            code=task.code,
            identity=task.identity,
        shell:
            "coolbits analysis {params.recipe} {params.root} --threads {threads}"
            " --log {log} --board {params.board} 2>> {log}"
