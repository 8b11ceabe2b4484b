"""coolbits: a reproducible laboratory for how training dynamics decide robustness to post-training quantization."""
