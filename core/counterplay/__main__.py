"""`python -m counterplay`: the same as the command `playbook`."""

from counterplay.cli import main

if __name__ == "__main__":
    main()
