"""A device that computes on the CPU and is strict as a GPU is, so that device errors are found without one.

`device.py` is the device, `crossings.py` tells what passes between it and the host, `steps.py` does so for each step of training,
`trials.py` lets a method learn on it. The tests beside them run every method, with every switch and choice of its settings.
"""
