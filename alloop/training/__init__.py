"""Fitting the members of a committee to labels."""
