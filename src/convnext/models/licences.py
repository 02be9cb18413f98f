"""The licences of weights by name, and what each asks of what is trained from them. No torch here."""

MIT, NON_COMMERCIAL, UNKNOWN = "MIT", "CC-BY-NC-4.0", "unknown"
OWN = "own weights"  # of a run from random weights: whoever trained them decides
DINOV3, FAIR_NC = "DINOv3 License", "FAIR Noncommercial Research License"
_TERMS = {  # what a licence asks of those who train from the weights
    NON_COMMERCIAL: "what is trained from them is not for commercial use, either",
    FAIR_NC: "what is trained from them is for research alone, not for commercial use, either",
    DINOV3: "what is trained from them may be passed on under that licence alone",
}


def terms(licence: str) -> str:
    """What `licence` asks of what is trained from the weights, as the end of a sentence; '' where nothing is known."""
    return _TERMS.get(licence, "")
