"""Potentials on graphs: what message-passing networks share, whatever their equations are."""
