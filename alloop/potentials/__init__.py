"""Interatomic potentials: committees, their members and the files that hold them."""
