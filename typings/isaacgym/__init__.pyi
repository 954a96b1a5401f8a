"""Isaac Gym Preview 4: the part that hepo_isaac calls. Import it before torch."""

from . import gymapi as gymapi
