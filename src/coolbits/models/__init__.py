"""Models: presets, sizes, building from a recipe, Hugging Face directories. `presets` and `counts` need no torch."""
