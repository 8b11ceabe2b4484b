"""Every claim by name, in the order of the page."""

from coolbits.artifacts.errors import CoolbitsError
from coolbits.claims.claim import Claim
from coolbits.claims.counted import COUNTED
from coolbits.claims.curvature import OF_CURVATURE
from coolbits.claims.errors import OF_ERRORS
from coolbits.claims.names import CLAIMS
from coolbits.claims.paper_a import PAPER_A
from coolbits.claims.paper_b import PAPER_B

_CLAIMS = PAPER_A | OF_CURVATURE | PAPER_B | COUNTED | OF_ERRORS
REGISTRY = {name: _CLAIMS[name] for name in CLAIMS}


def claim(name: str) -> Claim:
    """Return the claim called `name`.

    Raises:
        CoolbitsError: if there is none, listing those there are.
    """
    if name not in REGISTRY:
        raise CoolbitsError(f"claim {name!r}: no such claim; there are {', '.join(REGISTRY)}")
    return REGISTRY[name]
