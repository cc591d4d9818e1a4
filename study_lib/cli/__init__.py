"""The command `study`.

Options, printing and exit codes belong here; every import that takes time waits for its command.
What a command does belongs to a phase or a run.
"""
