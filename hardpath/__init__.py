"""The `hardpath` command: one sub-command a job.

It wires train, link and serve together, and nothing imports it. Each sub-command imports what it needs when it is called, so
that help is quick and a machine that only serves needs no torch.
"""
