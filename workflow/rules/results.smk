"""A study's own results: tables, figures, claims."""

for task in flow.tasks("table"):

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
            "coolbits table {params.recipe} {params.root} --threads {threads}"
            " --log {log} --board {params.board} 2>> {log}"


for task in flow.tasks("figure"):

    rule:
        name:
            task.name
        input:
            task.input,
        output:
            manifest=task.output,
            picture=report(
                task.file(f"{task.figure}.svg"),
                caption=task.caption,
                category="Figures",
                labels={"figure": task.figure},
            ),
            print=task.file(f"{task.figure}.png"),
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
            "coolbits figure {params.recipe} {params.root} --threads {threads}"
            " --log {log} --board {params.board} 2>> {log}"


for task in flow.tasks("claims"):

    rule:
        name:
            task.name
        input:
            task.input,
        output:
            manifest=task.output,
            page=report(
                task.file("claims.html"),
                caption="../report/claims.rst",
                category="Claims",
            ),
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
            "coolbits claims {params.recipe} {params.root} --threads {threads}"
            " --log {log} --board {params.board} 2>> {log}"
