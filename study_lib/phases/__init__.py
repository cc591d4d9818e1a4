"""The phases A to H: each from files to files and a record.

One module for each of the notebooks 01 to 06, and what they share: conditions, records, arms, the
scene and a mismatch, base data from measured patterns, what draws of measured photons say, views
that hold the same patterns, the backends that train; a new phase is also named in
conditions.PHASES and MANIFESTS, design/notebooks, runs/plan and cli/phases. What an algorithm does
inside does not belong here, nor what runs many notebooks.
"""
