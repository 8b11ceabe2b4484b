"""Post-training quantization: grids, RTN, GPTQ, calibration, and the ledger of what really ran."""
