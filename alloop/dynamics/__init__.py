"""Molecular dynamics on a committee: where it starts, how it moves, when it has broken."""
