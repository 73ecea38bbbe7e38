"""CLG-CBM: a bottleneck of concepts in words, which a user's file describes.

clg_cbm.py is the method, settings.py its hyper-parameters, concepts.py the user's file, search.py which concepts are kept.
mini_concepts.json are concepts of the mini world's classes, written for this project.
"""
