"""The settings of every verb: each field is a flag of the command line.

The same names, with dashes, are the keys of a `--config` file.
"""

from goracs_jax.choices import Dtype as Dtype
from goracs_jax.settings.check import Check as Check
from goracs_jax.settings.common import Hub as Hub
from goracs_jax.settings.common import Machine as Machine
from goracs_jax.settings.common import Processes as Processes
from goracs_jax.settings.common import Reading as Reading
from goracs_jax.settings.common import Settings as Settings
from goracs_jax.settings.comparison import Compare as Compare
from goracs_jax.settings.data import Demo as Demo
from goracs_jax.settings.data import Prepare as Prepare
from goracs_jax.settings.plan import Plan as Plan
from goracs_jax.settings.selection import Embed as Embed
from goracs_jax.settings.selection import Grads as Grads
from goracs_jax.settings.selection import Select as Select
from goracs_jax.settings.training import Evaluate as Evaluate
from goracs_jax.settings.training import Finetune as Finetune
from goracs_jax.settings.training import Judging as Judging
from goracs_jax.settings.training import Merge as Merge
from goracs_jax.settings.training import Training as Training
