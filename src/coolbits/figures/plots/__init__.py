"""The figures, one module each: `draw(tables, options)` gives the figure, `caption(tables, options, scale)` its text."""
