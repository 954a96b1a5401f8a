"""Where the data of the studies is: docs/ of a checkout."""

from __future__ import annotations

from hepo_isaac.errors import UserError
from hepo_isaac.locate import PACKAGE, bundled

CHECKOUT = PACKAGE.parent
DOCS = CHECKOUT / "docs"


def require_checkout() -> None:
    """Raise UserError where docs/ is not: in an installed wheel."""
    if bundled():
        raise UserError("the studies read and write docs/, which the package in %s lacks: use a checkout" % PACKAGE)
