"""How often a step of training may make a GPU wait for the host, or the host for a GPU.

An ordinary step waits for nothing and uploads what its batch is, its rows and labels. Methods that need more or less, by what
they are, stand here with their number; whoever mends one lowers it.
"""

from collections.abc import Iterable

from tests.stand_in_device.steps import Phase

UPLOADS = 2
ENCODES_PROMPTS_BY_TOKENS = (  # by a text tower that they train: it asks where the prompts end
    "cca-cl", "condu", "finetune", "icarl", "joint", "l2-wc", "lada", "lwf", "lwf-vr", "mg-clip", "we", "wise-ft",
    "zscl", "zscl-minus", "zscl-star",
)  # fmt: skip
# reads and results whose size the host must know
MORE_WAITS = dict.fromkeys(ENCODES_PROMPTS_BY_TOKENS, 1) | {
    "attriclip": 5,  # which prompts of the bank were chosen
    "cgil": 1,  # an epoch of a trial has one or two steps, and ends with a look at the loss; so for the next four
    "joint-prompts": 1,
    "diki": 1,
    "dpw": 1,
    "star-prompt": 2,
    "clap": 2,  # classes of the task, and the most classes of a task
    "clap-coop": 2,
    "clap-coop-novi": 2,
    "clap-maple": 2,
    "clap-novi": 2,
    "clap-attriclip": 7,  # those and the bank
    "coleclip": 1,
    "derpp": 4,  # which images the buffer keeps
    "er": 3,
    "moe-adapters": 8,  # which images go to an expert, in each block of both towers
}
ONLY_ROWS = ("cocoop", "coop", "diki", "icarl-nme", "joint-prompts", "maple", "proof", "slca")  # what else they need lies there
OTHER_UPLOADS = dict.fromkeys(ONLY_ROWS, 1) | {
    "cca-cl": 3,
    "clap-attriclip": 3,
    "clg-cbm": 4,  # draws of features of earlier classes
    "coda-prompt": 4,
    "coleclip": 4,
    "derpp": 9,
    "dpw": 8,  # dropout, drawn on the CPU, in each block of both towers
    "dualprompt": 4,
    "engine": 4,
    "er": 5,
    "icarl": 3,
    "l2p": 4,
    "lwf": 5,  # while the teacher is asked about images that are new to it, once about each
    "lwf-vr": 5,
    "moe-adapters": 4,
    "rapf": 7,  # draws of features of earlier classes, and of pairs
    "star-prompt": 3,
    "zscl": 3,  # outputs of the teacher
    "zscl-minus": 3,
    "zscl-star": 3,
}


def beyond_limits(name: str, phases: Iterable[Phase]) -> list[str]:
    """What in the ordinary steps of a method's phases is beyond its limits, in words."""
    waits, uploads = MORE_WAITS.get(name, 0), OTHER_UPLOADS.get(name, UPLOADS)
    found = []
    for phase in phases:
        for kinds, limit, what in ((("read", "shape"), waits, "waits"), (("upload",), uploads, "uploads")):
            if (count := phase.usual(*kinds)) > limit:
                found.append(f"{phase.name or 'training'}: {count} {what} in a step, at most {limit} may be: {phase.last}")
    return found
