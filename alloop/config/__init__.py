"""The campaign file: models, quantities with units, and errors that name line and column."""
