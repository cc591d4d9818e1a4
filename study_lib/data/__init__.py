"""Files that may be hostile, and the contract DATA-001 that every data set keeps.

Reading with suspicion, writing whole and every rule of the contract belong here. What the study
does with a measurement does not.
"""
