"""What detection and segmentation share: how their images become smaller when memory runs out."""

from convnext.config import AnnotatedInput


def smaller_in_training(config: AnnotatedInput) -> str:
    """How training images become smaller, and what they are now."""
    least, most = min(config.short_px), max(config.short_px)
    short = f"smaller images: `--input.short_px` (now {least if least == most else f'{least} to {most}'})"
    return f"{short} or `--input.crop_px` (now {config.crop_px or 'no crop'})"


def smaller_in_evaluation(config: AnnotatedInput) -> str:
    """The same for the images of evaluation."""
    return f"a smaller `--input.eval_short_px` (now {config.eval_short_px})"
