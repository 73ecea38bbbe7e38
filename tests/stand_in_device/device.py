"""The device "standin:0": its tensors lie in the memory of the CPU and are computed there, but torch sees another device.

    with stand_in_device() as device:
        torch.zeros(3, device=device) + torch.zeros(3)     # raises, as on a GPU

torch has a place for devices of other makers, PrivateUse1. Whatever torch does not take apart into smaller operators itself ends
in `_compute`, which looks at the devices of the tensors, computes on the CPU, and gives the result back as the device's. Threads,
autograd, modules and optimisers need nothing else: such tensors are ordinary ones, with another device.

It is as strict as CUDA: tensors of two devices may meet where they are copied, and where one is a single number on the CPU that
an element-wise operator takes. Random generators of the CPU do not draw on it. It has no mixed precision (autocast does nothing).
"""

import contextlib
import copy
import ctypes
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import backend_registration, checkpoint

from tests.stand_in_device import crossings

NAME = "standin"
DLPACK_CPU, DLPACK_OTHER = 1, 12  # kDLCPU and kDLExtDev of dlpack.h
aten = torch.ops.aten


@contextlib.contextmanager
def stand_in_device() -> Iterator[torch.device]:
    """The device, for this thread. Once it has been asked for, the process has it."""
    _registered()
    # In threads of its own, autograd does not know who counts crossings. An error inside a backward pass that computes
    # activations once more ends the process on such a device, and stopping early is an error to torch: do without.
    with torch.autograd.set_multithreading_enabled(False), checkpoint.set_checkpoint_early_stop(False):
        yield torch.device(NAME, 0)


class _Module:
    """What torch asks a device about itself, as it asks torch.cuda."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        """Its random numbers are those of the CPU."""

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


@functools.cache
def _registered() -> tuple[torch.library.Library, ...]:
    """Once in a process: torch knows the device. The libraries have to be kept, their kernels go with them."""
    register = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if register is None:
        raise RuntimeError(f"the stand-in device needs a newer torch than {torch.__version__}: install that of constraints.txt")
    register(NAME, _Module())
    library, operators = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    library.fallback(_compute, "PrivateUse1")
    for name in ("convolution_overrideable", "convolution_backward_overrideable"):  # there torch refuses other devices
        operators.impl(name, functools.partial(_compute, getattr(aten, name).default), "PrivateUse1")
    torch.Tensor.__deepcopy__ = _deepcopied(torch.Tensor.__deepcopy__)  # type: ignore[method-assign]
    return library, operators


def _deepcopied(of_torch):
    """torch copies the memory of a tensor by the device's own allocator; this device has none."""

    def deepcopy(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
        if tensor.device.type != NAME or id(tensor) in memo or not tensor.is_leaf:
            return of_torch(tensor, memo)
        copied = memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        copied.__dict__ = copy.deepcopy(tensor.__dict__, memo)
        return copied

    return deepcopy


# -- one memory, two devices ------------------------------------------------------------------------------------

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _as_the_devices(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the CPU as one of the device, in the same memory: handed over through DLPack, whose header says the device."""
    capsule = torch.utils.dlpack.to_dlpack(tensor)
    kind = ctypes.c_int32.from_address(_pointer(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p))  # behind the data
    assert kind.value == DLPACK_CPU
    kind.value = DLPACK_OTHER
    return torch.utils.dlpack.from_dlpack(capsule)


def _on_the_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """The reverse. What has no element is made anew, so that an operator may give it another size."""
    storage = tensor.untyped_storage()
    elements = storage.nbytes() // tensor.element_size()
    if not elements or not tensor.numel():
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    memory.owner = storage  # views of the memory keep it
    whole = torch.frombuffer(memory, dtype=tensor.dtype, count=elements)
    return whole.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def _is_ours(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def _inside(value: Any) -> Any:
    """An argument, as the operator gets it on the CPU."""
    if _is_ours(value):
        return _on_the_cpu(value)
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value


def _outside(value: Any) -> Any:
    return _as_the_devices(value) if isinstance(value, torch.Tensor) else value


# -- operators that the CPU has under another name ---------------------------------------------------------------


def _convolution_backward(gradient, x, weight, stride, padding, dilation, transposed, output_padding, groups, mask):
    bias = [weight.shape[1] * groups if transposed else weight.shape[0]]
    return aten.convolution_backward(
        gradient, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, mask
    )


ON_THE_CPU = {
    aten.convolution_overrideable.default: aten.convolution.default,
    aten.convolution_backward_overrideable.default: _convolution_backward,
}

# -- every operator ---------------------------------------------------------------------------------------------

# as on CUDA: to which they are copied first
TAKE_PLACES_OF_THE_CPU = {
    aten.index.Tensor, aten.index.Tensor_out, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
}  # fmt: skip


class _Operator:
    """What the schema of an operator says, read once."""

    def __init__(self, operator: torch._ops.OpOverload):
        arguments, returns = operator._schema.arguments, operator._schema.returns
        aliases = [a.alias_info for a in arguments]
        self.on_the_cpu = ON_THE_CPU.get(operator, operator)
        self.written = [(k, a.name) for k, (a, alias) in enumerate(zip(arguments, aliases)) if alias and alias.is_write]
        self.tensors_only = {k for k, a in enumerate(arguments) if str(a.type) == "Tensor"}
        self.takes_a_number = torch.Tag.pointwise in operator.tags or operator in TAKE_PLACES_OF_THE_CPU
        self.views = bool(returns) and returns[0].alias_info is not None
        self.returns_what_it_writes = self.views and returns[0].alias_info.is_write
        self.returns = len(returns)


_operator = functools.cache(_Operator)


def _compute(operator, *args, **kwargs):
    """What torch calls for an operator on tensors of the device."""
    if operator is aten._copy_from.default:
        source, target = args[:2]
        crossings.note_copy(source, target)
        _inside(target).copy_(_inside(source))
        return target
    facts = _operator(operator)
    _refuse_two_devices(operator, facts, args, kwargs)
    crossings.note_operator(operator)
    inside = [_inside_tensor(x) if k in facts.tensors_only else _map(_inside, x) for k, x in enumerate(args)]
    named = {name: _map(_inside, x) for name, x in kwargs.items()}
    # torch asks for a loss of single numbers by a result of one number, which grows
    single = [name for _, name in facts.written if isinstance(kwargs.get(name), torch.Tensor) and not kwargs[name].dim()]
    named |= {name: named[name].clone().resize_(0) for name in single}
    found = facts.on_the_cpu(*inside, **named)
    written = []
    for place, name in facts.written:
        tensor, own = (args[place], inside[place]) if place < len(args) else (kwargs[name], named[name])
        if isinstance(tensor, torch.Tensor) and tensor.shape != own.shape:  # it had one element at most, and was given others
            tensor.data = _as_the_devices(own)
        elif name in single:
            _on_the_cpu(tensor).copy_(own)
        written.append(tensor)
    if facts.returns_what_it_writes:
        return written[0] if facts.returns == 1 else tuple(written)
    if facts.views:  # a view is a tensor of inference mode only if what it shows is one
        with torch.inference_mode(args[0].is_inference()):
            return _map(_outside, found)
    return _map(_outside, found)


def _map(function, value):
    return type(value)(_map(function, x) for x in value) if type(value) in (list, tuple) else function(value)


def _inside_tensor(value: Any) -> Any:
    """torch hands a number over as such, also to an operator that takes a tensor only."""
    return torch.tensor(value) if isinstance(value, int | float) else _inside(value)


def _refuse_two_devices(operator, facts: _Operator, args, kwargs) -> None:
    if operator in TAKE_PLACES_OF_THE_CPU:
        places, args = args[1], (args[0], *args[2:])
        for place in places:
            if place is not None and not _is_ours(place) and operator is not aten.index.Tensor_out:  # torch has copied it once
                crossings.note_upload(place, str(operator))
    for value in _flat((args, tuple(kwargs.values()))):
        if isinstance(value, torch.Generator):
            raise RuntimeError(f"{operator}: expected a generator of {NAME}, but found one of {value.device.type}")
        if isinstance(value, torch.Tensor) and not _is_ours(value) and (value.dim() or not facts.takes_a_number):
            raise RuntimeError(
                f"{operator}: expected all tensors to be on the same device, but found {NAME}:0 and {value.device}"
            )


def _flat(values) -> Iterator[Any]:
    for value in values:
        if type(value) in (list, tuple):
            yield from _flat(value)
        else:
            yield value
