"""The study file: schema, grids, plan, cost. Only this package knows its shape."""
