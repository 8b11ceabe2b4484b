"""The figures, one module each: `draw(tables, options)` and `caption(tables, options, scale)`."""
