"""Stand in for the calls of modules.

A stand-in lies where `nn.Module.compile` keeps its code, in the attribute `_compiled_call_impl`: torch asks for it first when a
module is called, and leaves it out of every copy and pickle. So what is copied, saved, scripted, traced or exported while a
stand-in is on is an ordinary module. It costs a fifth of a pair of forward hooks; without one, a module runs exactly as if
nobody watched.
"""

import sys
from collections.abc import Callable, Iterable
from types import FrameType, FunctionType
from typing import Any, Final

import torch
from torch import nn
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch._dynamo.eval_frame import skip_code
from torch.fx import GraphModule
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

Forward = Callable[..., Any]
Listener = Callable[[Forward, tuple[Any, ...], dict[str, Any]], Any]  # runs what it is given with these arguments

_PLACE: Final = "_compiled_call_impl"
_ASKING: Final = nn.Module._wrapped_call_impl.__code__
_MODES: Final = (
    torch._C._TorchDispatchModeKey.FAKE,
    torch._C._TorchDispatchModeKey.PROXY,
    torch._C._TorchDispatchModeKey.FUNCTIONAL,
)


def is_traced() -> bool:
    """Return whether a tracer, exporter or functional transform runs the model, and not the training."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or is_fx_symbolic_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(torch._C._get_dispatch_mode(mode) is not None for mode in _MODES)
    )


def in_backward() -> bool:
    """Return whether autograd calls this, as when gradient checkpointing computes a block again."""
    return torch._C._current_graph_task_id() != -1


def has_own_call(module: nn.Module) -> bool:
    """Return whether the module's class has a `__call__` of its own.

    Dynamo follows it down to the attribute where stand-ins lie, and so compiles once more while one is on.
    """
    return type(module).__call__ is not nn.Module.__call__ and not isinstance(module, GraphModule)


class StandIn:
    """Stands in for the call of one module while it is on.

    Passes for a function, since `torch.jit.script` leaves out function attributes that it can't compile. Pickles and copies as
    None, for modules that copy their whole `__dict__` themselves.
    """

    def __init__(self, module: nn.Module, listener: Listener, *, inside: bool) -> None:
        self.module = module
        self.prior: Forward | None = None
        self.on = self.compiled = False
        self._listener, self._inside = listener, inside
        self._original: Forward = module._call_impl
        self._placed: Forward = _as_function(self) if has_own_call(module) else self

    def put_on(self) -> None:
        """Take the place of the module's call."""
        here = vars(self.module)  # past Module.__setattr__, which costs time and does nothing here
        self.on, self.compiled = True, False
        self._place_over(here.get(_PLACE))
        here[_PLACE] = self._placed

    def _place_over(self, prior: Forward | None) -> None:
        self.prior = prior
        self._original = self.module._call_impl if prior is None else prior

    def take_off(self) -> None:
        """Give the module back what it had, also if another stand-in or other code has taken the place since."""
        self.on = False
        here = vars(self.module)
        top = here.get(_PLACE)
        if top is self._placed:
            if self.prior is None:
                del here[_PLACE]
            else:
                here[_PLACE] = self.prior
            return
        above = _stand_in(top)
        while above is not None and above.prior is not self._placed:
            above = _stand_in(above.prior)
        if above is not None:
            above._place_over(self.prior)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Stand in for the module's `_call_impl`; torch calls it."""
        return self.call_listener(sys._getframe(1), args, kwargs)

    def call_listener(self, asking: FrameType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Let the listener run the module's call, or its forward alone; `asking` is the frame of `nn.Module.__call__`."""
        if asking.f_code is _ASKING:
            caller = asking.f_locals["self"]
            if caller is not self.module:  # a replica that shares the attributes of its original
                return caller._call_impl(*args, **kwargs)
        if get_eval_frame_callback() is not None:  # under `torch.compile`, which captures what runs below, or has captured it
            self.compiled = True
            return self._original(*args, **kwargs)
        if not self.on:
            return self._original(*args, **kwargs)
        if self._inside:
            return listen_inside(self.module, self._original, self._listener, args, kwargs)
        return self._listener(self._original, args, kwargs)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()

    def __deepcopy__(self, _: object) -> None:
        return None

    @property  # type: ignore[misc]  # object declares it as no property
    def __class__(self) -> type:
        return FunctionType


def _as_function(stand_in: StandIn) -> Forward:
    """Return the stand-in as a function that Dynamo can follow: it reads the attribute of modules with their own `__call__`."""
    module = stand_in.module

    def called(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return module._call_impl(*args, **kwargs)
        return stand_in.call_listener(sys._getframe(1), args, kwargs)

    called.stand_in = stand_in  # type: ignore[attr-defined]  # functions take any attribute
    return called


def _stand_in(call: Forward | None) -> StandIn | None:
    found = call if type(call) is StandIn else getattr(call, "stand_in", None)
    return found if type(found) is StandIn else None


def listen_inside(module: nn.Module, call: Forward, listener: Listener, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a module's call, but its forward, without the hooks around it, through the listener; compiled code goes whole."""
    if call != module._call_impl:
        return listener(call, args, kwargs)
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    if not hooked and not nn.modules.module._has_any_global_hook():
        return listener(module.forward, args, kwargs)
    forward, own = module.forward, vars(module).get("forward")

    def heard(*given: Any, **named: Any) -> Any:
        put_back()
        return listener(forward, given, named)

    def put_back() -> None:
        if vars(module).get("forward") is heard:
            if own is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = own

    vars(module)["forward"] = heard
    try:
        return call(*args, **kwargs)
    finally:
        put_back()


class Wrapping:
    """Stand-ins of several modules, each with its listener, which runs its calls (`inside`: its forward alone)."""

    def __init__(self, modules: Iterable[tuple[nn.Module, Listener]], *, inside: bool) -> None:
        self._stand_ins = [StandIn(module, listener, inside=inside) for module, listener in modules]

    def put_on(self) -> None:
        """Put on those that are not."""
        for stand_in in self._stand_ins:
            if not stand_in.on:
                stand_in.put_on()

    def take_off(self) -> None:
        """Take off those that are on."""
        for stand_in in self._stand_ins:
            if stand_in.on:
                stand_in.take_off()

    @property
    def compiled(self) -> bool:
        """Whether one of the modules was called under `torch.compile` since it was put on, so that its listener did not run."""
        return any(stand_in.compiled for stand_in in self._stand_ins)


def is_compiled(module: nn.Module) -> bool:
    """Return whether `module.compile()` has put code in the place of its call."""
    call = vars(module).get(_PLACE)
    while (stand_in := _stand_in(call)) is not None:
        call = stand_in.prior
    return call is not None


for _code in (StandIn.__call__.__code__, StandIn.call_listener.__code__):
    skip_code(_code)  # Dynamo goes on with the frames below, which are the user's, as if these were not there
