"""4D-spacetime models: where every atom is at any time, R(t) = f(R0, v0, t)."""
