"""Every number that decides a result, and the way to it from files and options.

Names and limits of the numbers are in models (and axes, experiment, methods, wanted), their values
in parameters/presets/*.yaml, which presets reads. What follows from a design, or whether a machine
can carry it out, does not belong here.
"""
