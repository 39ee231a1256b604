"""Internal coordinates: how a model sees the shape of a molecule."""
