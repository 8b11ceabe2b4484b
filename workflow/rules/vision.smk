"""The vision experiment: sets of images, and classifiers trained on them."""

for task in flow.tasks("images"):

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
            "coolbits images {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"


for task in flow.tasks("classifier"):

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
            "coolbits classifier {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"
