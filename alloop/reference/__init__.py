"""Reference methods: what the truth costs, and why it is sometimes not to be had."""
