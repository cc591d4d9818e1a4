"""The phases A to H: each from files to files and a record.

One module a numbered notebook, and what they share: conditions, records, the registry of arms.
What an algorithm does inside does not belong here, nor what runs many notebooks. It may import
everything below it.
"""
