"""alloop: from one YAML file to a trusted neural potential and a 4D-spacetime model."""

__version__ = "0.1.0"
