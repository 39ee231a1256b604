"""``python -m alloop``."""

from alloop.cli.main import main

main()
