"""Supervised fine-tuning: conversations as tokens, then one job a family of starts, all of its fine-tunings."""

for task in flow.tasks("conversations"):

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
            "coolbits conversations {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"


for task in flow.tasks("finetuned"):

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
            "coolbits finetuned {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"
