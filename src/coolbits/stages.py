"""The stages: which module makes each kind of artifact. Its function `run(job, store)` returns how many it made."""

STAGES = {
    "corpus": "coolbits.data.corpus",
    "pretrained": "coolbits.pretrained.stage",
    "tokenizer": "coolbits.data.tokenizers",
    "shards": "coolbits.data.tokenize",
    "checkpoint": "coolbits.training.stage",
    "average": "coolbits.averaging.stage",
    "conversations": "coolbits.finetuning.conversations",
    "finetuned": "coolbits.finetuning.stage",
    "calibration": "coolbits.ptq.calibration_set",
    "quantized": "coolbits.ptq.stage",
    "evaluation": "coolbits.evaluation.stage",
    "analysis": "coolbits.analysis.stage",
    "images": "coolbits.vision.images",
    "classifier": "coolbits.vision.stage",
    "table": "coolbits.figures.tables",
    "figure": "coolbits.figures.stage",
    "claims": "coolbits.claims.stage",
}
