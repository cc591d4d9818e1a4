"""What only the notebooks beside the phases need: lessons, looking around, watching.

Menus, sliders and small computations for teaching belong here. What a result depends on does not.
"""
