"""Models that others trained, one job each: from the hub, a directory or a GGUF file to a plain directory."""

for task in flow.tasks("pretrained"):

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
            "coolbits pretrained {params.recipe} {params.root} --threads {threads}"
            " --log {log} --board {params.board} 2>> {log}"
