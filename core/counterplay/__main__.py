"""`python -m counterplay` is the command `playbook`."""

from counterplay.cli import main

main()
