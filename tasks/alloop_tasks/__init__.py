"""What may run on another machine: one module per verb, each a pure function of its spec."""
