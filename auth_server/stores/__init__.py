"""What the auth server keeps in the store: one small class a concept, with operations named by intent.

Each write is one atomic script, so two at once can't both win and no reader sees half of one.
"""
