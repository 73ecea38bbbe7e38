"""CoLeCLIP: a prompt for each task in the image tower, and a vocabulary of all class names.

coleclip.py          the method: settings, a task's training, scores
image_prompts.py     the frozen image tower with the prompts of all tasks beside the image's own tokens
vocabulary.py        names that several data sets share, and what a name starts from
open_domain_loss.py  the second half of a task's training, against the classes of earlier tasks
"""
