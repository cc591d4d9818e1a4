"""PtychoPINN: network, inputs, training, bundle, and its object of a measurement.

What only this network needs belongs here, from tensors of groups to stitching. What it shares
with another does not.
"""
