"""`python -m counterplay_sim`, the same as `playbook sim`."""

from counterplay_sim.cli import sim

sim(prog_name="python -m counterplay_sim")
