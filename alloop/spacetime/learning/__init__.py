"""Fitting a model to trajectories."""
