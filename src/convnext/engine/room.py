"""How many images pass a network together without gradients: on a GPU what its memory has room for."""

import torch

from convnext.kernels.transfer import queued

MOST = 256  # images: more fill no GPU any better
MAPS = 100  # times the bytes of a float32 image that its maps take on their way; 64 for the widest networks, of C = 256


def images_together(device: torch.device, values: int, usual: int) -> int:
    """Of images of so many `values`, those that fit into half of a GPU's free memory; elsewhere the `usual` number.

    An estimate: who asks for them halves where it was too bold.
    """
    if not queued(device):
        return usual
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MOST, free // 2 // (MAPS * 4 * max(1, values))))
