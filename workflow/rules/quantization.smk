"""From calibration tokens to quantized models: one job a family of trajectories."""

for task in flow.tasks("calibration"):

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
            "coolbits calibration {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"


for task in flow.tasks("quantized"):

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
            "coolbits quantized {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"
