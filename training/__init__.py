"""Makes the shipped attribute models from the tables in `training/data`: same seed, same bytes.

Read `recipes.py` for what is trained, `pipeline.py` for the order of the steps, and a finished `card.md` for the
result.
"""
