"""Every number that decides a result, and the way to it from files and options.

Models of settings belong here, with the checks that need nothing but the numbers. What follows
from a design, or whether a machine can carry it out, does not. It may import only the ground.
"""
