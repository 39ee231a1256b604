"""The command line: parse arguments, call, show. No logic."""
