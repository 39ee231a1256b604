"""How good a model is, and where it cannot be trusted."""
