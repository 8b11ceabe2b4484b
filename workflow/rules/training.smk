"""Pretraining: one job a trajectory (or several, `execution.training_jobs`); a branch in another waits for all its trunk."""

for task in flow.tasks("checkpoint"):

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
            "coolbits checkpoint {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"
