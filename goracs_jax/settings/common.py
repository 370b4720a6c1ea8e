"""Settings that several verbs share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from goracs_jax.choices import BadRows, Dtype, Leakage, Remat, TooLong
from goracs_jax.errors import InputError
from goracs_jax.settings.flags import Flag

Budgets = Annotated[tuple[int, ...], Flag(each=int, metavar="INT")]


def whole_or_auto(text: str) -> int | str:
    """Read a budget.

    >>> whole_or_auto("64"), whole_or_auto("auto")
    (64, 'auto')
    """
    return text if text == "auto" else int(text)


BudgetsOrAuto = Annotated[
    tuple[int | str, ...], Flag(each=whole_or_auto, metavar="INT")
]
TEMPLATE_FILE = r"^(?!(?:alpaca|chat)$).+"  # --template, unless it is a name
BY_FORM = Flag(default="all; answer for chats")  # of --labels
Names = Annotated[tuple[str, ...], Flag(each=str, metavar="NAME")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that all verbs share."""

    group: ClassVar[str] = "run"

    config: Path | None = None
    """YAML file with flags of this verb, such as `budget: 64`; flags that are typed
    override the file."""
    dry_run: bool = False
    """Check the inputs, print the plan (stages, sizes, what is done already) and
    stop."""
    seed: int = 0
    """Seed of everything that is drawn at random, in [0, 2**32 - 1]."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How an LLM runs on the machine; verbs use all devices that JAX sees."""

    group: ClassVar[str] = "machine"

    dtype: Annotated[
        Dtype | None, Flag(default="float32 on CPUs, bfloat16 on GPUs and TPUs")
    ] = None
    """Precision of the LLM's weights and activations; adapters, sums, norms and scores
    are float32."""
    model_devices: int = 1
    """Number of devices that share one copy of the LLM; each such group of devices
    takes other examples."""
    tokens_per_batch: Annotated[
        int | None,
        Flag(default="1024 to 4096 on CPUs, elsewhere what fits into memory"),
    ] = None
    """Padded tokens of the batch that a device processes at one time."""


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Models that are named as on the hub of Hugging Face."""

    group: ClassVar[str] = "machine"

    revision: Annotated[str | None, Flag(default="main")] = None
    """Branch, tag or commit of a --model that is named as on the hub
    (organisation/model)."""


@dataclass(frozen=True, kw_only=True)
class Backward:
    """How the backward pass through an LLM runs."""

    group: ClassVar[str] = "machine"

    remat: Remat = "products"
    """What the backward pass through all layers keeps of each: the products of its
    linear layers, or its input alone (layers), which takes less memory and computes the
    layer once more."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How records become texts."""

    group: ClassVar[str] = "records and template"

    template: Annotated[
        str | None,
        Flag(
            default="alpaca for Alpaca records, chat for chats",
            metavar="NAME",
            reads=TEMPLATE_FILE,
        ),
    ] = None
    """Template of the texts: alpaca, the model's own (chat), or the file of another
    chat template in Jinja; prompt and completion stand as they are without it."""
    columns: Annotated[
        tuple[str, ...] | None,
        Flag(default="told by the keys", each=str, metavar="NAME=KEY"),
    ] = None
    """Keys of the records, with commas between them: messages, role, content and
    system; prompt and completion; or instruction, input and output, as in
    messages=dialog."""


@dataclass(frozen=True, kw_only=True)
class Records(Reading):
    """Records that are too long or cannot be used."""

    group: ClassVar[str] = "long and bad records"

    max_length: Annotated[
        int | None, Flag(metavar="TOKENS", default="the context of the model")
    ] = None
    """Largest number of tokens of a text: prompt, answer and the end of the text."""
    too_long: Annotated[
        TooLong | None, Flag(default="cut with --max-length, else as --bad-rows says")
    ] = None
    """Refuse longer texts, leave them out (skip), or cut their oldest side (cut): the
    first titles of a history, else the first words of an input, and the first turns of
    a chat. Instruction, system message and last answer stay whole. A text for which
    this is not enough is a bad row."""
    bad_rows: BadRows = "refuse"
    """Refuse the first record that cannot be used, or leave all of them out and write
    them beside the results (skip). Rows keep their numbers in the file: arrays of rows
    have NaN for records that are left out."""


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """Training examples that are copies of those that judge."""

    group: ClassVar[str] = "leakage"

    leakage: Leakage = "keep"
    """Refuse, drop or keep training examples that equal a validation or test example
    after white space, case and NFC. Their number is said in any case: transport rewards
    copies."""
    near_copies: Annotated[float | None, Flag(metavar="SHARE")] = None
    """Count near copies, too: examples of which at least this share of all runs of
    three words, as 0.9, is in both; needs goracs_jax[near]."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The settings of verbs that several processes can run together."""

    group: ClassVar[str] = "processes"

    coordinator: Annotated[str | None, Flag(metavar="HOST:PORT")] = None
    """Address of the first of several processes, or auto under SLURM, MPI or on TPUs;
    without it one process runs alone."""
    processes: int | None = None
    """Number of processes, all of which see the same files; not needed with auto."""
    process: int | None = None
    """Number of this process, counted from 0; not needed with auto."""

    def __post_init__(self) -> None:
        """Refuse processes that have no place to meet.

        Raises:
            InputError: --processes or --process stands alone.
        """
        if not self.coordinator and (self.processes, self.process) != (None, None):
            raise InputError(
                "--processes and --process need --coordinator, where the processes "
                "meet: give it, or leave them out."
            )
