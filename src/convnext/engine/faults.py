"""What the libraries by which processes talk say when they cannot: that another process is gone, or what is wrong here.

They say both in the same kinds of errors, in many lines. Who has lost another process goes on from the last checkpoint; who
has two processes on one GPU, or no network between machines, has to know that.
"""

import torch.distributed as dist

_FAULTS = ("ncclInvalidUsage", "ncclInvalidArgument", "ncclInternalError", "ncclUnhandledCudaError", "ncclSystemError")
_OF_OTHERS = ("remote", "peer", "refused", "reset", "closed", "timed out", "timeout")  # of connections that were there
_MOST = 200  # letters of a reason


def lost(error: BaseException) -> bool:
    """Whether an error of torch means that another process is gone."""
    if fault(error):
        return False
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def fault(error: BaseException) -> str:
    """What NCCL finds wrong with how processes were started or with this machine, in one line; '' where it is nothing such."""
    text = str(error)
    kind = next((each for each in _FAULTS if each in text), "")
    if not isinstance(error, dist.DistError) or not kind:
        return ""
    reason = _last_line(text)
    if kind == "ncclSystemError" and any(word in reason.lower() for word in _OF_OTHERS):
        return ""
    return f"NCCL, by which GPUs talk, ended with {kind}: {reason}. NCCL_DEBUG=INFO before the command shows more."


def apart(error: BaseException, backend: str) -> str:
    """Why processes that have met cannot talk to each other, in one line."""
    variable = "NCCL_SOCKET_IFNAME" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
    return fault(error) or (
        f"The processes have met and cannot talk to each other by {backend}: {_last_line(str(error))}. Where a machine has "
        f"several networks, {variable}=NAME before the command chooses one, such as eth0 (`ip addr` lists them)."
    )


def _last_line(text: str) -> str:
    """Where the reason stands: what is before it names files of a compiler."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines or ["no reason"])[-1][:_MOST].rstrip(".")
