"""ENGINE: a linear unit on each side of CLIP per task, a linear discriminant, and descriptions of classes where there are any.

engine.py is the method, units.py what it trains, descriptions.py the user's file, reranking.py the second look at the best
classes.
"""
