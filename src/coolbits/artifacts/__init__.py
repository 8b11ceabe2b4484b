"""Ground floor: identity, manifests, atomic files, code slices and the environment."""
