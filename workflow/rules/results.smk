"""A study's own results: tables, figures, claims; and pages about them, of lineage and of settings."""

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
            "coolbits table {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"


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
                labels={"figure": task.title, "show": "figure"},
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
            "coolbits figure {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"


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
            "coolbits claims {params.recipe:q} {params.root:q} --threads {threads}"
            " --log {log:q} --board {params.board:q} 2>> {log:q}"


figures = list(flow.tasks("figure"))

if figures:

    rule lineage:
        input:
            [manifest for task in figures for manifest in task.output],
        output:
            [
                report(
                    task.page,
                    caption="../report/lineage.rst",
                    category="Figures",
                    labels={"figure": task.title, "show": "lineage"},
                )
                for task in figures
            ],
        log:
            flow.log("lineage"),
        conda:
            "../../envs/coolbits.yaml"
        params:
            root=flow.root,
            code=flow.page_code("lineage_page"),
        shell:
            "coolbits lineage {input:q} --out {params.root:q}/lineage > {log:q} 2>&1"


rule settings:
    input:
        flow.settings_outdated_by,
    output:
        report(
            flow.settings,
            caption="../report/settings.rst",
            category="Study",
            labels={"page": "settings"},
        ),
    log:
        flow.log("settings"),
    conda:
        "../../envs/coolbits.yaml"
    params:
        study=flow.source,
        identity=flow.identity,
        code=flow.page_code("settings"),
    shell:
        "coolbits settings {params.study:q} --out {output:q} > {log:q} 2>&1"
