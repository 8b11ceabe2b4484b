"""Export: quantized models in the formats that other software opens, written from the codes themselves."""
